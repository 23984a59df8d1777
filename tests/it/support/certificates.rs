//! Authorities, and the certificates that they sign.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate of 127.0.0.1 with its key, both as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("the system gives randomness");
        Self(CertifiedIssuer::self_signed(params, key).expect("the parameters are good"))
    }

    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A new key, and a certificate for it. It serves clients and servers alike.
    pub(crate) fn identity(&self) -> Identity {
        let key = KeyPair::generate().expect("the system gives randomness");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        let certificate = params.signed_by(&key, &self.0).expect("the parameters are good");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
