//! A NATS operator: signs the JWTs of an account and of its users, as `nsc` does.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::time::Duration;

/// An operator with one account for the ledger, and the system's.
pub(crate) struct Operator {
    own: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

/// What a user's JWT says beside its name.
#[derive(Debug)]
pub(crate) struct Claims {
    until: Option<Duration>,
}

impl Claims {
    pub(crate) fn forever() -> Self {
        Self { until: None }
    }

    /// Until then, counted from 1970 in whole seconds.
    pub(crate) fn until(time: Duration) -> Self {
        Self { until: Some(time) }
    }
}

impl Operator {
    pub(crate) fn new() -> Self {
        Self { own: KeyPair::new_operator(), account: KeyPair::new_account(), system: KeyPair::new_account() }
    }

    /// The lines that make a server trust this operator and know its accounts.
    pub(crate) fn server_configuration(&self) -> String {
        let operator = signed(&self.own, &self.own, "operator", None, &json!({"type": "operator", "version": 2}));
        let account = |key: &KeyPair, storage: i64| {
            let limits = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
                "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
            });
            let nats = json!({"type": "account", "version": 2, "limits": limits, "default_permissions": {"pub": {}, "sub": {}}});
            signed(&self.own, key, "account", None, &nats)
        };
        let (ledger, system) = (account(&self.account, -1), account(&self.system, 0));
        let (ledger_key, system_key) = (self.account.public_key(), self.system.public_key());
        format!(
            "operator: {operator}\nsystem_account: {system_key}\nresolver: MEMORY\n\
             resolver_preload: {{ {ledger_key}: {ledger}, {system_key}: {system} }}\n"
        )
    }

    /// A `.creds` file of a new user of the ledger's account.
    pub(crate) fn credentials(&self, name: &str, claims: &Claims) -> String {
        let user = KeyPair::new_user();
        let nats = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        let jwt = signed(&self.account, &user, name, claims.until, &nats);
        let seed = user.seed().expect("it is a pair");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn signed(issuer: &KeyPair, subject: &KeyPair, name: &str, until: Option<Duration>, nats: &Value) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut claims = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": nats,
    });
    if let Some(until) = until {
        claims["exp"] = until.as_secs().into();
    }
    let header = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).expect("it is a pair");
    format!("{signed}.{}", encode(&signature))
}
