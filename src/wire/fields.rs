//! Strict reading of signed JSON: no member twice at any depth, no member that the contract does not know,
//! no value of another type. Every fault names its field.

use std::cell::RefCell;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::{Code, Problem, envelope::shorten};

/// The longest member name that is repeated to the caller, in characters.
const LONGEST_NAME: usize = 64;

/// Reads one JSON object.
///
/// # Errors
/// `INVALID_FIELD` for a member that comes twice, a number or text that can't be represented, or nesting
/// deeper than 127, naming the place; `INVALID_JSON` where there is no place to name.
pub fn object(json: &str) -> Result<Map<String, Value>, Problem> {
    let path = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = Strict { path: &path }.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    match read {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Problem::new(Code::InvalidJson).details("the payload must be an object")),
        Err(error) => {
            let why = shorten(&error.to_string(), 200);
            let path = path.into_inner();
            if path.is_empty() {
                return Err(Problem::new(Code::InvalidJson).details(format!("in `payload`: {why}")));
            }
            // Deep nesting is a fault of the member that holds it; its whole path would be as long.
            let shown = &path[..path.len().min(8)];
            Err(invalid(&shown.join("."), &why))
        }
    }
}

/// The refusal of a field that breaks its rule. `why` goes on after the field's name.
pub fn invalid(field: &str, why: &str) -> Problem {
    Problem::new(Code::InvalidField).details(format!("`{field}`: {why}")).with("field", field)
}

/// The refusal of a field that the contract does not know.
pub fn unknown(field: &str, known: &[&str]) -> Problem {
    Problem::new(Code::UnknownField)
        .details(format!("`{field}` is no field of this contract; known here are {}", known.join(", ")))
        .with("field", field)
}

/// An object whose members are taken one by one, each by its type.
#[derive(Debug)]
pub struct Fields<'a> {
    prefix: &'a str,
    map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// `prefix` stands before the names in faults: empty, or for example `sandbox.`.
    ///
    /// # Errors
    /// `UNKNOWN_FIELD` for a member that is not among the known ones.
    pub fn new(prefix: &'a str, map: Map<String, Value>, known: &[&str]) -> Result<Fields<'a>, Problem> {
        if let Some(name) = map.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(unknown(&format!("{prefix}{}", shorten(name, LONGEST_NAME)), known));
        }
        Ok(Fields { prefix, map })
    }

    /// The full name of a member.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The refusal of one of these members.
    pub fn invalid(&self, name: &str, why: &str) -> Problem {
        invalid(&self.path(name), why)
    }

    /// A member of any type; null is the same as absent, as Go's nil is.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    ///
    /// # Errors
    /// `INVALID_FIELD` if it is anything else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(name, "must be a text")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// `INVALID_FIELD` if it is missing or anything else.
    pub fn required_text(&mut self, name: &str) -> Result<String, Problem> {
        self.text(name)?.ok_or_else(|| self.invalid(name, "is missing; it must be a text"))
    }

    /// Unix seconds that must be there.
    ///
    /// # Errors
    /// `INVALID_FIELD` if it is missing or no whole number.
    pub fn seconds(&mut self, name: &str) -> Result<i64, Problem> {
        self.take(name)
            .as_ref()
            .and_then(Value::as_i64)
            .ok_or_else(|| self.invalid(name, "must be a whole number: Unix seconds"))
    }

    /// A whole number of at least `min`.
    ///
    /// # Errors
    /// `INVALID_FIELD` if it is anything else.
    pub fn whole(&mut self, name: &str, min: u64, unit: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if number >= min => Ok(Some(number)),
            _ => Err(self.invalid(name, &format!("must be a whole number of {unit}, at least {min}"))),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// `INVALID_FIELD` if it is anything else.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let Value::Array(items) = value else {
            return Err(self.invalid(name, "must be a list of texts"));
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                _ => return Err(self.invalid(&format!("{name}.{index}"), "must be a text")),
            }
        }
        Ok(Some(texts))
    }

    /// An object with any members.
    ///
    /// # Errors
    /// `INVALID_FIELD` if it is anything else.
    pub fn map(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.invalid(name, "must be an object or null")),
        }
    }
}

/// Builds a value and keeps the path to where it is, so that a fault can name it: the last step is popped
/// only after success.
#[derive(Clone, Copy)]
struct Strict<'p> {
    path: &'p RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.path.borrow_mut().push(list.len().to_string());
            let next = items.next_element_seed(self)?;
            self.path.borrow_mut().pop();
            match next {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.path.borrow_mut().push(shorten(&name, LONGEST_NAME));
            if map.contains_key(&name) {
                return Err(A::Error::custom("comes twice in one object"));
            }
            let value = members.next_value_seed(self)?;
            self.path.borrow_mut().pop();
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> (Code, Option<String>) {
        let problem = object(json).unwrap_err();
        (problem.code, problem.more.get("field").and_then(Value::as_str).map(str::to_owned))
    }

    #[test]
    fn a_member_twice_is_named_at_any_depth() {
        assert_eq!(fault(r#"{"a":1,"a":1}"#), (Code::InvalidField, Some("a".into())));
        // The same name, once with an escape.
        assert_eq!(fault("{\"a\":1,\"\\u0061\":1}"), (Code::InvalidField, Some("a".into())));
        assert_eq!(
            fault(r#"{"x":{"list":[0,{"b":{},"b":null}]}}"#),
            (Code::InvalidField, Some("x.list.1.b".into()))
        );
        assert!(object(r#"{"x":{"a":1},"y":{"a":1},"z":[{"a":1},{"a":1}]}"#).is_ok());
    }

    #[test]
    fn what_cannot_be_represented_is_named() {
        assert_eq!(fault(r#"{"a":{"n":1e999}}"#), (Code::InvalidField, Some("a.n".into())));
        assert_eq!(fault(r#"{"a":"\ud800"}"#), (Code::InvalidField, Some("a".into())));
        assert_eq!(fault(r#"{"\ud800":1}"#), (Code::InvalidJson, None));
        assert_eq!(fault(r#"{"a":1} x"#), (Code::InvalidJson, None));
        assert_eq!(fault("[]"), (Code::InvalidJson, None));
    }

    #[test]
    fn deep_nesting_is_a_fault_not_a_crash() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let (code, field) = fault(&deep);
        assert_eq!(code, Code::InvalidField);
        assert!(field.unwrap().starts_with("a.0.0"));
    }

    #[test]
    fn values_are_what_the_usual_reader_makes_of_them() {
        let json =
            r#"{"a":[1,-1,1.5,1e21,12345678901234567000,0,-0.0,true,null,"\u003c\ud83e\udd80"],"b":{}}"#;
        let usual: Value = serde_json::from_str(json).unwrap();
        assert_eq!(Value::Object(object(json).unwrap()), usual);
    }
}
