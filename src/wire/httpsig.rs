//! HTTP Message Signatures (RFC 9421): what proves a read. The part of it that this contract uses:
//! requests only, one signature, derived components and whole header fields without parameters.

mod structured;
#[cfg(test)]
mod tests;

use structured::{Bare, Params, Parser};

use super::key::{SigningKey, VerifyingKey};

/// The label of our own signatures; of others' any label is taken.
const LABEL: &str = "quickcmd";

/// The most components that a signature may cover.
const MAX_COMPONENTS: usize = 32;

/// The request that is signed, as its sender sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// `GET`.
    pub method: &'a str,
    /// `https` or `http`; those, too, for a WebSocket.
    pub scheme: &'a str,
    /// Host, with the port if it is not the scheme's own.
    pub authority: &'a str,
    /// As sent: `/api/v1/jobs?limit=10`.
    pub path_and_query: &'a str,
}

/// The two header fields that make a request signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// Value of `Signature-Input`.
    pub signature_input: String,
    /// Value of `Signature`.
    pub signature: String,
}

/// Why a signature can't be looked at.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum SignatureError {
    /// The fields are no structured fields of the expected form, or hold several signatures.
    #[error(
        "`Signature-Input` and `Signature` must hold one signature, under one label (RFC 9421, section 4)"
    )]
    Malformed,
    /// A parameter is missing or of the wrong type.
    #[error("the signature's parameter `{0}` is missing or of the wrong type")]
    Parameter(&'static str),
    /// A component is unknown, has parameters, comes twice, or the request has no such field.
    #[error("the signature covers `{0}`, which this request does not have or this program does not know")]
    Component(String),
    /// What tells requests apart is not covered.
    #[error(
        "the signature must cover \"@method\", and \"@target-uri\" or \"@authority\" with \"@path\" and \"@query\""
    )]
    Coverage,
}

/// The `keyid` of a controller's key: `controller_id`, or `controller_id/key_id`.
pub fn keyid(controller_id: &str, key_id: Option<&str>) -> String {
    match key_id {
        Some(key_id) => format!("{controller_id}/{key_id}"),
        None => controller_id.to_owned(),
    }
}

/// Signs a request: `"@method" "@authority" "@path" "@query"` with `created` (Unix seconds), the nonce, the
/// algorithm, and [`keyid`] of the controller and the key's own name. Controller, key name and nonce must be
/// printable ASCII, as every signature's verifier demands.
pub fn sign(
    target: &Target<'_>,
    key: &SigningKey,
    controller_id: &str,
    created: i64,
    nonce: &str,
) -> SignatureHeaders {
    let text = |text: &str| Bare::Text(text.to_owned());
    let signed = Signed {
        components: ["@method", "@authority", "@path", "@query"].map(str::to_owned).to_vec(),
        params: vec![
            ("created".to_owned(), Bare::Integer(created)),
            ("nonce".to_owned(), text(nonce)),
            ("alg".to_owned(), text(key.algorithm().http_name())),
            ("keyid".to_owned(), text(&keyid(controller_id, key.key_id()))),
        ],
        signature: Vec::new(),
    };
    let base = signed.base(target, |_| None).expect("derived components need no header field");
    let input = structured::serialize_list(&signed.components, &signed.params);
    SignatureHeaders {
        signature_input: format!("{LABEL}={input}"),
        signature: format!("{LABEL}={}", Bare::Bytes(key.sign(base.as_bytes())).serialize()),
    }
}

/// A signature as its two fields show it. Nothing in it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    components: Vec<String>,
    params: Params,
    signature: Vec<u8>,
}

impl Signed {
    /// Reads the two fields.
    ///
    /// # Errors
    /// They are malformed, hold more than one signature, or have different labels.
    pub fn parse(signature_input: &str, signature: &str) -> Result<Signed, SignatureError> {
        let read = || {
            let mut input = Parser::new(signature_input)?;
            let label = input.key()?;
            input.eat("=")?;
            let (components, params) = input.inner_list()?;
            let mut value = Parser::new(signature)?;
            let same = value.key()?;
            value.eat("=")?;
            let signature = value.bytes()?;
            let whole = input.at_end() && value.at_end() && label == same;
            (whole && components.len() <= MAX_COMPONENTS).then_some(Signed { components, params, signature })
        };
        read().ok_or(SignatureError::Malformed)
    }

    /// When it was made, Unix seconds.
    ///
    /// # Errors
    /// There is no such parameter, though this contract asks for it.
    pub fn created(&self) -> Result<i64, SignatureError> {
        self.integer("created")?.ok_or(SignatureError::Parameter("created"))
    }

    /// After when it is of no use, Unix seconds, if it says so.
    ///
    /// # Errors
    /// The parameter is no number.
    pub fn expires(&self) -> Result<Option<i64>, SignatureError> {
        self.integer("expires")
    }

    /// Whose key.
    ///
    /// # Errors
    /// There is no such parameter, though this contract asks for it.
    pub fn keyid(&self) -> Result<&str, SignatureError> {
        self.text("keyid")?.ok_or(SignatureError::Parameter("keyid"))
    }

    /// The algorithm's name, if it says so.
    ///
    /// # Errors
    /// The parameter is no string.
    pub fn alg(&self) -> Result<Option<&str>, SignatureError> {
        self.text("alg")
    }

    /// The signature's bytes.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Whether the signature tells this request from others: method, authority, path and query are covered.
    ///
    /// # Errors
    /// One of them is not.
    pub fn check_coverage(&self, target: &Target<'_>) -> Result<(), SignatureError> {
        let covers = |name: &str| self.components.iter().any(|component| component == name);
        let query = covers("@query") || !target.path_and_query.contains('?');
        let path_and_query = (covers("@path") && query) || covers("@request-target");
        if covers("@method") && (covers("@target-uri") || (covers("@authority") && path_and_query)) {
            Ok(())
        } else {
            Err(SignatureError::Coverage)
        }
    }

    /// The signature base (RFC 9421, section 2.5). `field` gives a header field's value by its lower-case
    /// name: trimmed, several lines of one name joined with `, `.
    ///
    /// # Errors
    /// A component comes twice, is unknown, or is a field that the request does not have.
    pub fn base(
        &self,
        target: &Target<'_>,
        field: impl Fn(&str) -> Option<String>,
    ) -> Result<String, SignatureError> {
        let mut base = String::new();
        for (index, name) in self.components.iter().enumerate() {
            let unknown = || SignatureError::Component(name.clone());
            if self.components[..index].contains(name) {
                return Err(unknown());
            }
            let value = match name.strip_prefix('@') {
                Some(derived) => target.derive(derived),
                None if is_field_name(name) => field(name),
                None => None,
            };
            let value = value.ok_or_else(unknown)?;
            // A line break in a value would let one component pass for two.
            if value.contains(['\r', '\n']) {
                return Err(unknown());
            }
            base.push_str(&format!("{}: {value}\n", structured::quote(name)));
        }
        base.push_str("\"@signature-params\": ");
        base.push_str(&structured::serialize_list(&self.components, &self.params));
        Ok(base)
    }

    /// Whether this key made the signature over this request. What it covers, how old it is and whose key
    /// that is are other questions.
    ///
    /// # Errors
    /// As [`Signed::base`].
    pub fn verify(
        &self,
        target: &Target<'_>,
        field: impl Fn(&str) -> Option<String>,
        key: &VerifyingKey,
    ) -> Result<bool, SignatureError> {
        let base = self.base(target, field)?;
        let named = self.alg()?.is_none_or(|name| name == key.algorithm().http_name());
        Ok(key.verify(base.as_bytes(), &self.signature) && named)
    }

    fn param(&self, name: &str) -> Option<&Bare> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn integer(&self, name: &'static str) -> Result<Option<i64>, SignatureError> {
        match self.param(name) {
            None => Ok(None),
            Some(Bare::Integer(number)) => Ok(Some(*number)),
            Some(_) => Err(SignatureError::Parameter(name)),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, SignatureError> {
        match self.param(name) {
            None => Ok(None),
            Some(Bare::Text(text)) => Ok(Some(text)),
            Some(_) => Err(SignatureError::Parameter(name)),
        }
    }
}

impl Target<'_> {
    /// A derived component (RFC 9421, section 2.2), by its name without the `@`.
    fn derive(&self, name: &str) -> Option<String> {
        let (path, query) = match self.path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path_and_query, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        match name {
            "method" => Some(self.method.to_owned()),
            "scheme" => Some(self.scheme.to_ascii_lowercase()),
            "authority" => Some(self.normal_authority()),
            "target-uri" => {
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                let scheme = self.scheme.to_ascii_lowercase();
                Some(format!("{scheme}://{}{path}{query}", self.normal_authority()))
            }
            "request-target" => Some(self.path_and_query.to_owned()),
            "path" => Some(path.to_owned()),
            "query" => Some(format!("?{}", query.unwrap_or_default())),
            _ => None,
        }
    }

    /// `@authority`: in lower case, without the scheme's own port (RFC 9421, section 2.2.3).
    pub fn normal_authority(&self) -> String {
        let authority = self.authority.to_ascii_lowercase();
        match authority.strip_suffix(&format!(":{}", self.own_port())) {
            Some(host) => host.to_owned(),
            None => authority,
        }
    }

    /// The scheme's own port.
    pub fn own_port(&self) -> u16 {
        if self.scheme.eq_ignore_ascii_case("http") { 80 } else { 443 }
    }
}

/// A field's name as it must stand in a signature: a token in lower case (RFC 9421, section 2.1).
fn is_field_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
        })
}
