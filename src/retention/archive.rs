//! Stores archived files in a folder, or in any object store that a URL names. No other file uses the `object_store`
//! crate.

use crate::retention::removal::{ArchiveStore, FailureCause, RetentionError};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use url::Url;

/// What of the environment is handed to the clients of object stores.
const ENVIRONMENT_PREFIXES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

#[derive(Debug)]
pub struct Archive {
    store: Box<dyn ObjectStore>,
    /// What stands before each name.
    prefix: Path,
    location: String,
    is_folder: bool,
}

impl Archive {
    /// Opens a folder, or the object store of a URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
    /// Credentials come from the environment.
    pub fn open(location: &str) -> Result<Self, RetentionError> {
        let refused =
            |what: &dyn std::fmt::Display| RetentionError::new(FailureCause::Refused, format!("the archive: {what}"));
        if !location.contains("://") {
            return Self::folder(std::path::Path::new(location));
        }
        let url = Url::parse(location).map_err(|error| refused(&error))?;
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| refused(&"a file URL has three slashes: file:///folder"))?;
            return Self::folder(&path);
        }
        // The location is written into the ledger.
        if url.password().is_some() || url.query().is_some() {
            return Err(refused(&"the URL must hold no secret; credentials belong into the environment"));
        }
        // The client finds a TLS provider here, or panics. Where there is one already, it is this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let ours = ENVIRONMENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            ours.then(|| Some((name.to_ascii_lowercase(), value.into_string().ok()?)))?
        });
        let (store, prefix) = object_store::parse_url_opts(&url, settings).map_err(|error| refused(&error))?;
        Ok(Self { store, prefix, location: url.to_string(), is_folder: false })
    }

    /// A folder is never made: where the disk is not mounted, it would be in the wrong place.
    fn folder(path: &std::path::Path) -> Result<Self, RetentionError> {
        let refused = |what: &dyn std::fmt::Display| {
            RetentionError::new(FailureCause::Refused, format!("the archive {}: {what}", path.display()))
        };
        let path = path.canonicalize().map_err(|error| refused(&error))?;
        let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| refused(&error))?.with_fsync(true);
        let url = Url::from_directory_path(&path).map_err(|()| refused(&"it is no folder"))?;
        Ok(Self { store: Box::new(store), prefix: Path::default(), location: url.to_string(), is_folder: true })
    }

    fn path(&self, name: &str) -> Result<Path, RetentionError> {
        let path = Path::parse(format!("{}/{name}", self.prefix).trim_start_matches('/'));
        path.map_err(|error| {
            RetentionError::new(FailureCause::Failed, format!("the archive {}: {error}", self.location))
        })
    }

    fn trouble(&self, name: &str, error: &object_store::Error) -> RetentionError {
        let cause = match error {
            object_store::Error::NotFound { .. } => FailureCause::Damaged,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                FailureCause::Refused
            }
            _ if self.is_folder => FailureCause::Failed,
            _ => FailureCause::Away,
        };
        RetentionError::new(cause, format!("the archive {}: {name}: {error}", self.location))
    }
}

impl ArchiveStore for Archive {
    fn location(&self) -> &str {
        &self.location
    }

    async fn keep(&self, name: &str, bytes: Vec<u8>) -> Result<(), RetentionError> {
        // A put is atomic: nobody ever sees half a file under its name.
        let put = self.store.put(&self.path(name)?, bytes.into()).await;
        put.map(drop).map_err(|error| self.trouble(name, &error))
    }

    async fn fetch(&self, name: &str, bytes: usize) -> Result<Vec<u8>, RetentionError> {
        let found = self.store.get(&self.path(name)?).await.map_err(|error| self.trouble(name, &error))?;
        // Before its bytes are taken into memory.
        if found.meta.size != bytes as u64 {
            let what =
                format!("the archive {}: {name}: {} bytes, and {bytes} are expected", self.location, found.meta.size);
            return Err(RetentionError::new(FailureCause::Damaged, what));
        }
        let content = found.bytes().await.map_err(|error| self.trouble(name, &error))?;
        Ok(content.into())
    }
}
