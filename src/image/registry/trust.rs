//! Whom do we take for the registry? The machine's CAs, and what `certs.d/HOST[:PORT]/` adds for one host
//! (containers-certs.d(5), and the same below /etc/docker): `*.crt` are CAs, `X.cert` with `X.key` is who we are.

use super::registries::places;
use anyhow::{Context, Result, ensure};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};

/// Where distributions keep the CAs in one file: Debian, Fedora, SUSE, Alpine. `SSL_CERT_FILE` goes before.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub struct Trust {
    dirs: Vec<PathBuf>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    system: OnceLock<Vec<Certificate<'static>>>,
}

impl Trust {
    pub fn from_environment() -> Trust {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let mut dirs = places(&get, "containers");
        dirs.push(PathBuf::from("/etc/docker"));
        Trust {
            dirs: dirs.into_iter().map(|dir| dir.join("certs.d")).collect(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            system: OnceLock::new(),
        }
    }

    /// How TLS is spoken with a host; `insecure`: with whoever answers.
    ///
    /// # Errors
    /// A certificate or key that cannot be read, by its path.
    pub fn of(&self, authority: &str, insecure: bool) -> Result<TlsConfig> {
        let mut own = Own::default();
        for dir in &self.dirs {
            own.read(&dir.join(authority))?;
        }
        let builder =
            TlsConfig::builder().unversioned_rustls_crypto_provider(self.provider.clone());
        let builder = match insecure {
            true => builder.disable_verification(true),
            false => {
                let cas: Vec<_> = self.system()?.iter().cloned().chain(own.cas).collect();
                ensure!(
                    !cas.is_empty(),
                    "no CA certificates are here to know {authority} by: install ca-certificates, or set SSL_CERT_FILE"
                );
                builder.root_certs(RootCerts::Specific(Arc::new(cas)))
            }
        };
        let identity = own
            .identity
            .map(|(chain, key)| ClientCert::new_with_certs(&chain, key));
        Ok(builder.client_cert(identity).build())
    }

    fn system(&self) -> Result<&Vec<Certificate<'static>>> {
        if let Some(system) = self.system.get() {
            return Ok(system);
        }
        let named = std::env::var_os("SSL_CERT_FILE")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        let found = match named {
            Some(file) => certificates(&file)?,
            None => match BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
                Some(bundle) => certificates(bundle)?,
                None => Vec::new(),
            },
        };
        Ok(self.system.get_or_init(|| found))
    }
}

/// What certs.d has for one host.
#[derive(Default)]
struct Own {
    cas: Vec<Certificate<'static>>,
    identity: Option<(Vec<Certificate<'static>>, PrivateKey<'static>)>,
}

impl Own {
    fn read(&mut self, dir: &Path) -> Result<()> {
        let listed = match std::fs::read_dir(dir) {
            Ok(listed) => listed,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| dir.display().to_string()),
        };
        let files: std::io::Result<Vec<PathBuf>> = listed.map(|entry| Ok(entry?.path())).collect();
        let mut files = files.with_context(|| dir.display().to_string())?;
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.cas.extend(certificates(&file)?),
                Some("cert") if self.identity.is_none() => self.identity = Some(identity(&file)?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A client's certificate with the key beside it. That they belong together is checked here, since ureq takes it for
/// granted.
fn identity(file: &Path) -> Result<(Vec<Certificate<'static>>, PrivateKey<'static>)> {
    let key_file = file.with_extension("key");
    let text = read(&key_file).with_context(|| format!("the key of {}", file.display()))?;
    let bad_key = || format!("{}: no private key in PEM", key_file.display());
    let key = PrivateKey::from_pem(&text).with_context(bad_key)?;
    let chain = certificates(file)?;
    let rustls_key = rustls::pki_types::PrivateKeyDer::try_from(key.der().to_vec());
    let rustls_key = rustls_key
        .map_err(anyhow::Error::msg)
        .with_context(bad_key)?;
    let rustls_chain = chain
        .iter()
        .map(|one| rustls::pki_types::CertificateDer::from(one.der().to_vec()))
        .collect();
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(rustls_chain, rustls_key, &provider)
        .with_context(|| format!("{} and {}", file.display(), key_file.display()))?;
    Ok((chain, key))
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let text = read(file)?;
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        if let PemItem::Certificate(certificate) =
            item.with_context(|| file.display().to_string())?
        {
            found.push(certificate);
        }
    }
    ensure!(
        !found.is_empty(),
        "{}: no certificate in PEM",
        file.display()
    );
    Ok(found)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| file.display().to_string())
}
