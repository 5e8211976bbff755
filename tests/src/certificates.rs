//! The certificate of a test server, by an authority that nobody knows.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// Files in a folder that is removed when this is dropped. The server is called `localhost`.
#[derive(Debug)]
pub struct Certificates {
    /// The certificate of the authority.
    pub root: PathBuf,
    /// The certificate of the server.
    pub certificate: PathBuf,
    /// The key of the server.
    pub key: PathBuf,
    _folder: TempDir,
}

impl Certificates {
    /// Of a new authority.
    #[expect(clippy::new_without_default, reason = "each of them is another authority")]
    pub fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("a certificate");
        let key = KeyPair::generate().expect("a key");
        let names = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = names.signed_by(&key, &authority).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, pem: &str| {
            let path = folder.path().join(name);
            fs::write(&path, pem).expect("the folder is ours");
            path
        };
        Self {
            root: file("root.pem", &authority.pem()),
            certificate: file("certificate.pem", &certificate.pem()),
            key: file("key.pem", &key.serialize_pem()),
            _folder: folder,
        }
    }

    /// Copies the server's certificate, and its key so that nobody else can read it.
    pub fn copy_to(&self, certificate: &Path, key: &Path) {
        fs::copy(&self.certificate, certificate).expect("the folder is there");
        fs::copy(&self.key, key).expect("the folder is there");
        fs::set_permissions(key, Permissions::from_mode(0o600)).expect("the file is ours");
    }
}
