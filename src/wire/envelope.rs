//! The signed envelope: `{"payload": {...}, "signature": {"signature", "algorithm", "key_id"?}}`.
//!
//! What is signed is the exact bytes of the payload's value as they stand in the body, from its `{` to
//! the matching `}`. Nothing is ever re-serialised to verify.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Code, Problem,
    key::{Algorithm, SigningKey},
};

/// A body that has the shape of an envelope. Nothing in it is trusted yet.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    /// The payload's bytes as they stand in the body: an object, or what is balanced like one.
    pub payload: &'a str,
    pub signature: Signature<'a>,
}

/// The envelope's other half.
#[derive(Debug, Clone, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature<'a> {
    /// Hexadecimal digits, of either case.
    #[serde(borrow)]
    pub signature: Cow<'a, str>,
    /// Named for the reader; the key decides, and another name is refused.
    #[schemars(with = "Algorithm")]
    #[serde(borrow)]
    pub algorithm: Cow<'a, str>,
    /// Which of the controller's keys; all valid ones are tried where it is absent, null or empty.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub key_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    signature: &'a RawValue,
}

impl<'a> Envelope<'a> {
    /// Finds the two halves in a body. Members that the contract does not know, members that come twice
    /// and anything after the object are refused.
    ///
    /// # Errors
    /// `INVALID_JSON`, saying what and where.
    pub fn parse(body: &'a [u8]) -> Result<Envelope<'a>, Problem> {
        // An array of the right length would do for a derived struct as well; the contract says object.
        if !is_object(body) {
            return Err(invalid_json("the body must be one JSON object with `payload` and `signature`"));
        }
        let shape: Shape<'a> =
            serde_json::from_slice(body).map_err(|error| invalid_json(error.to_string()))?;
        if !is_object(shape.payload.get().as_bytes()) {
            return Err(invalid_json("`payload` must be an object"));
        }
        if !is_object(shape.signature.get().as_bytes()) {
            return Err(invalid_json("`signature` must be an object"));
        }
        let mut signature: Signature<'a> = serde_json::from_str(shape.signature.get())
            .map_err(|error| invalid_json(format!("in `signature`: {error}")))?;
        // A Go struct without `omitempty` sends an empty text where there is no key id.
        signature.key_id = signature.key_id.filter(|key_id| !key_id.is_empty());
        Ok(Envelope { payload: shape.payload.get(), signature })
    }

    /// The payload's `controller_id`: the only thing that is read of it before the signature holds, to
    /// choose the key. The first one counts if it comes twice; what reads the payload later refuses that.
    ///
    /// # Errors
    /// `INVALID_JSON` if there is none, or the payload is no JSON up to its end.
    pub fn controller_id(&self) -> Result<Cow<'a, str>, Problem> {
        let found: ControllerId<'a> = serde_json::from_str(self.payload)
            .map_err(|error| invalid_json(format!("in `payload`: {error}")))?;
        Ok(found.0)
    }
}

/// A whole body: the payload's bytes as given, which must be one JSON object, and the key's signature
/// over them.
pub fn sign(payload: &[u8], key: &SigningKey) -> Vec<u8> {
    let signature = Signature {
        signature: hex::encode(key.sign(payload)).into(),
        algorithm: key.algorithm().as_str().into(),
        key_id: key.key_id().map(Cow::from),
    };
    let mut body = Vec::with_capacity(payload.len() + 256);
    body.extend_from_slice(b"{\"payload\":");
    body.extend_from_slice(payload);
    body.extend_from_slice(b",\"signature\":");
    serde_json::to_writer(&mut body, &signature).expect("texts serialise into memory");
    body.push(b'}');
    body
}

/// The longest sentence of the JSON parser that is repeated to the caller, in characters: it may quote a
/// member's name, which may be as long as the body.
const LONGEST_QUOTE: usize = 200;

fn invalid_json(why: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidJson).details(shorten(&why.into(), LONGEST_QUOTE))
}

/// The first `max` characters, with an ellipsis where there were more.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn is_object(json: &[u8]) -> bool {
    json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

struct ControllerId<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for ControllerId<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Find;
        impl<'de> Visitor<'de> for Find {
            type Value = ControllerId<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a text `controller_id`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = None;
                while let Some(Text(key)) = map.next_key()? {
                    if key == "controller_id" && found.is_none() {
                        found = Some(map.next_value::<Text<'de>>()?.0);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                found.map(ControllerId).ok_or_else(|| A::Error::missing_field("controller_id"))
            }
        }
        deserializer.deserialize_map(Find)
    }
}

/// A text that is borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
