//! A throw-away certificate authority, made anew for each test that needs one.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Its own root certificate, and the key to sign others with.
pub(crate) struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a new one.
    pub(crate) fn new() -> Self {
        Self::named("cupbearer tests' throw-away CA")
    }

    /// The same under another name.
    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a root certificate");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// The root certificate, for `ca_file`.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for these names (DNS names or addresses) and its key, both PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_until(names, 2200)
    }

    /// The same, valid until the beginning of `year` only.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("legal names");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A server's certificate signed by itself, as `openssl req -x509` makes it: it says that it is an authority's. And
    /// its key, both PEM.
    pub(crate) fn self_signed(name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a legal name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}
