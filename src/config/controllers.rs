//! Who may sign: the seed's shared secret with its list of ids, and controllers with keys of their own.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::{
    Controller, Daily, Key, Limits, Rate, file, limits,
    secret::{self, Names, Sources},
    section::{At, Section},
};
use crate::{
    base::clock::Timestamp,
    wire::key::{Algorithm, VerifyingKey},
};

const SHARED: Names = Names {
    inline: "hmac_secret",
    file: "hmac_secret_file",
    env: Some("hmac_secret_env"),
    credential: Some("hmac_secret_credential"),
};

const OWN: Names = Names {
    inline: "secret",
    file: "secret_file",
    env: Some("secret_env"),
    credential: Some("secret_credential"),
};

/// The first bytes of an Ed25519 public key in DER (RFC 8410, section 4); the 32 of the key follow.
const ED25519_DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// All controllers, and the shared key.
pub(super) struct Controllers {
    pub all: Vec<Controller>,
    pub revoked: Vec<String>,
    pub shared: Vec<Key>,
}

/// What a controller has unless it says otherwise.
pub(super) struct Base {
    pub defaults: Limits,
    pub max: Limits,
    pub rate: Rate,
    pub rate_of_reads: Rate,
    pub daily: Daily,
}

/// Reads `hmac_secret...`, `allowed_controllers` and `controllers`.
pub(super) fn read(top: &mut Section<'_>, sources: &Sources<'_>, base: &Base) -> Controllers {
    let mut all = Vec::new();
    // Where each controller stands, for faults between two of them.
    let mut places: Vec<(String, String)> = Vec::new();
    let shared = read_shared(top, sources);
    for at in top.get("allowed_controllers").and_then(At::list).unwrap_or_default() {
        let Some(id) = at.read(identifier) else { continue };
        if !new_id(&at, &id, &mut places) {
            continue;
        }
        all.push(Controller {
            id,
            keys: shared.clone(),
            scopes: vec!["*".to_owned()],
            admin: false,
            images: None,
            max: base.max,
            network: false,
            rate: base.rate,
            rate_of_reads: base.rate_of_reads,
            max_queued: None,
            max_running: None,
            daily: base.daily,
            reuse: 1,
        });
    }
    let secret_given = [SHARED.inline, SHARED.file, "hmac_secret_env", "hmac_secret_credential"]
        .into_iter()
        .any(|name| top.given(name));
    match (all.is_empty(), secret_given) {
        (false, false) => top.fault(
            "hmac_secret",
            "is missing, and the controllers of `allowed_controllers` sign with it: generate one with `quickcmd gen-key`",
        ),
        (true, true) => top.notes.warn("hmac_secret is given, but `allowed_controllers` names nobody who could use it"),
        _ => {}
    }
    // Every key with the controller it belongs to; one key of two controllers would let each sign as the other.
    let mut used: Vec<(String, SecretSlice<u8>)> =
        shared.iter().map(|key| ("the shared `hmac_secret`".to_owned(), key.material.clone())).collect();
    let mut revoked = Vec::new();
    for at in top.get("controllers").and_then(At::list).unwrap_or_default() {
        let Some(mut section) = at.section() else { continue };
        // Its keys are read all the same: they must stay nobody else's.
        let out = section.flag("revoked", false);
        let read = controller(section, sources, base, &mut places, &mut used);
        match read {
            Some(controller) if out => revoked.push(controller.id),
            read => all.extend(read),
        }
    }
    if all.is_empty() {
        top.notes.warn(
            "no controller is configured: nobody can submit jobs (`allowed_controllers` or `controllers`)",
        );
    }
    Controllers { all, revoked, shared }
}

fn read_shared(top: &mut Section<'_>, sources: &Sources<'_>) -> Vec<Key> {
    let secret = sources.read(top, &SHARED);
    secret
        .map(|secret| Key {
            key_id: None,
            algorithm: Algorithm::HmacSha256,
            material: bytes(&secret),
            not_before: None,
            not_after: None,
        })
        .into_iter()
        .collect()
}

fn bytes(secret: &SecretString) -> SecretSlice<u8> {
    SecretSlice::from(secret.expose_secret().as_bytes().to_vec())
}

/// Ids of controllers and of keys.
fn identifier(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty: give it a name".to_owned()),
        _ if text.len() > 256 => Err("is longer than 256 bytes".to_owned()),
        _ if text.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err("has spaces or control characters in it".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// The name of a key. A signature over a read names `controller_id/key_id` (`keyid`, RFC 9421, section 2.3), where the
/// last slash divides.
fn key_name(text: &str) -> Result<String, String> {
    match identifier(text)? {
        name if name.contains('/') => {
            Err("has a slash in it, which divides a controller's id from its key's: leave it out".to_owned())
        }
        name => Ok(name),
    }
}

fn new_id(at: &At<'_>, id: &str, places: &mut Vec<(String, String)>) -> bool {
    if let Some((_, place)) = places.iter().find(|(other, _)| other == id) {
        at.fault(format!("{id:?} is a controller already, at {place}: keep one of the two"));
        return false;
    }
    places.push((id.to_owned(), at.key.clone()));
    true
}

fn controller(
    mut section: Section<'_>,
    sources: &Sources<'_>,
    base: &Base,
    places: &mut Vec<(String, String)>,
    used: &mut Vec<(String, SecretSlice<u8>)>,
) -> Option<Controller> {
    let id = match section.get("id") {
        Some(at) => at.read(identifier).filter(|id| new_id(&at, id, places)),
        None => {
            section.fault("id", "is missing: give the `controller_id` that this controller sends");
            None
        }
    };
    let owner = id.as_ref().map_or_else(|| section.path.clone(), |id| format!("controller {id:?}"));
    let keys = match section.get("keys") {
        Some(at) => keys(at, sources, &owner, used),
        None => {
            section.fault("keys", "is missing: give at least one key, for example from `quickcmd gen-key`");
            Vec::new()
        }
    };
    let now = Timestamp::now();
    if !keys.is_empty() && keys.iter().all(|key| key.not_after.is_some_and(|end| end < now)) {
        section.notes.warn(format!(
            "every key of {owner} has expired (`not_after`): nobody can sign as it until it gets another"
        ));
    }
    let scopes: Vec<String> = section
        .get("scopes")
        .and_then(At::list)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|at| at.read(scope))
        .collect();
    let images = section.get("images").and_then(images);
    let max = limits::maxima(section.section("max"), &base.max, &base.defaults);
    let network = section.choice(
        "network",
        false,
        &[("none", false), ("bridge", true), ("false", false), ("true", true)],
    );
    let rate_of_reads = rate(section.section("rate_of_reads"), base.rate_of_reads);
    let rate = rate(section.section("rate"), base.rate);
    let max_queued =
        section.get("max_queued").is_some().then(|| section.count("max_queued", 1, 1..=1_000_000));
    let max_running =
        section.get("max_running").is_some().then(|| section.count("max_running", 1, 1..=10_000));
    let daily = daily(section.section("daily"), base.daily);
    let reuse = section.whole("reuse", 1, 1..=1_000_000);
    section.finish();
    Some(Controller {
        id: id?,
        keys,
        admin: scopes.iter().any(|scope| scope == "admin"),
        scopes,
        images,
        max,
        network,
        rate,
        rate_of_reads,
        max_queued,
        max_running,
        daily,
        reuse: u32::try_from(reuse).unwrap_or(1),
    })
}

/// A scope as a controller holds it: a name, `prefix:*`, or `*`.
fn scope(text: &str) -> Result<String, String> {
    let name = match text {
        "*" => return Ok(text.to_owned()),
        _ => text.strip_suffix(":*").unwrap_or(text),
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || "._:-/".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(letters) {
        return Err("is no scope: write a name, `prefix:*`, or `*`".to_owned());
    }
    Ok(text.to_owned())
}

/// A list of image references, at least one.
pub(super) fn images(at: At<'_>) -> Option<Vec<String>> {
    let empty = at.clone();
    let items = at.list()?;
    if items.is_empty() {
        empty.fault("lists no image: name at least one, as jobs write it");
        return None;
    }
    Some(items.into_iter().filter_map(|at| at.read(image)).collect())
}

pub(super) fn image(text: &str) -> Result<String, String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "._/:@-".contains(c);
    if text.is_empty() || text.len() > 512 || !text.chars().all(letters) || text.starts_with('-') {
        return Err(
            "is no image reference: write it like alpine:latest or registry.example.com/tool@sha256:..."
                .into(),
        );
    }
    Ok(text.to_owned())
}

pub(super) fn rate(mut section: Section<'_>, default: Rate) -> Rate {
    let per_second = section.number("per_second", default.per_second, 0.0..=1_000_000.0);
    let burst = section.count("burst", default.burst as usize, 1..=1_000_000);
    section.finish();
    Rate { per_second, burst: u32::try_from(burst).unwrap_or(u32::MAX) }
}

/// What a day may take; what is not written is as in `default`.
pub(super) fn daily(mut section: Section<'_>, default: Daily) -> Daily {
    let cpu_seconds =
        section.get("cpu_seconds").is_some().then(|| section.seconds("cpu_seconds", 1, 1..=1_000_000_000));
    let output_bytes = section.get("output").is_some().then(|| section.bytes("output", 1, 1..=1 << 60));
    section.finish();
    Daily {
        cpu_seconds: cpu_seconds.or(default.cpu_seconds),
        output_bytes: output_bytes.or(default.output_bytes),
    }
}

fn keys(
    at: At<'_>,
    sources: &Sources<'_>,
    owner: &str,
    used: &mut Vec<(String, SecretSlice<u8>)>,
) -> Vec<Key> {
    let empty = at.clone();
    let Some(items) = at.list() else { return Vec::new() };
    if items.is_empty() {
        empty.fault("lists no key: give at least one, for example from `quickcmd gen-key`");
    }
    let mut keys: Vec<Key> = Vec::new();
    for at in items {
        let place = at.clone();
        let Some(key) = at.section().and_then(|section| key(section, sources)) else { continue };
        if key.key_id.is_some() && keys.iter().any(|other| other.key_id == key.key_id) {
            place.fault("has the same `key_id` as another key of this controller: give each its own");
        }
        match used.iter().find(|(_, material)| secret::same(key.material.expose_secret(), material)) {
            Some((other, _)) if other == owner => {
                place.fault("is the same key as another of this controller: keep one of the two");
            }
            Some((other, _)) => place.fault(format!(
                "is also the key of {other}, so each could sign as the other: give every controller its own"
            )),
            None => used.push((owner.to_owned(), key.material.clone())),
        }
        keys.push(key);
    }
    keys
}

fn key(mut section: Section<'_>, sources: &Sources<'_>) -> Option<Key> {
    let key_id = section.get("key_id").and_then(|at| at.read(key_name));
    let not_before = section.get("not_before").and_then(|at| at.read(super::size::moment));
    let not_after = section.get("not_after").and_then(|at| at.read(super::size::moment));
    if let (Some(before), Some(after)) = (not_before, not_after)
        && before > after
    {
        section.fault("not_after", "lies before `not_before`: this key would never be valid");
    }
    let secret_given = ["secret", "secret_file", "secret_env", "secret_credential"]
        .into_iter()
        .filter(|name| section.get(name).is_some())
        .count();
    let public = public_key(&mut section);
    let secret = sources.read(&mut section, &OWN);
    let given = secret_given
        + usize::from(section.given("public_key"))
        + usize::from(section.given("public_key_file"));
    if given == 0 {
        section.fault(
            "secret",
            "is missing: give `secret`, `secret_file`, `secret_env`, `secret_credential`, `public_key` or \
             `public_key_file`",
        );
    } else if given > 1 && secret_given < given {
        section.fault("public_key", "stands beside another key: write each key as an entry of its own");
    }
    section.finish();
    let (algorithm, material) = match (secret, public) {
        (Some(secret), _) => (Algorithm::HmacSha256, bytes(&secret)),
        (None, Some(public)) => (Algorithm::Ed25519, SecretSlice::from(public.to_vec())),
        (None, None) => return None,
    };
    Some(Key { key_id, algorithm, material, not_before, not_after })
}

fn public_key(section: &mut Section<'_>) -> Option<[u8; 32]> {
    if let Some(at) = section.get("public_key_file") {
        let path = at.notes.path(at.text()?);
        let read = file::read(&path).and_then(|contents| {
            let text = String::from_utf8(contents.bytes).map_err(|_| "is no text".to_owned())?;
            ed25519(&text)
        });
        return read.map_err(|what| at.fault(format!("{} {what}", path.display()))).ok();
    }
    let at = section.get("public_key")?;
    let text = at.text()?;
    // Not shown: it might be a secret that somebody put under the wrong key.
    ed25519(text).map_err(|what| at.fault(what)).ok()
}

/// 32 bytes from hex, Base64 or PEM.
fn ed25519(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "is no Ed25519 public key: give its 32 bytes in hex or Base64, or its PEM".to_owned();
    let text = text.trim();
    if text.to_ascii_lowercase().starts_with(secret::ED25519) {
        return Err("begins with `ed25519:`, as the private key does, which stays with its controller: give the public \
                    key that `quickcmd gen-key --ed25519` prints, without that"
            .to_owned());
    }
    let raw = if text.starts_with("-----BEGIN PUBLIC KEY-----") {
        let inside: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(inside).map_err(|_| wrong())?;
        der.strip_prefix(&ED25519_DER).ok_or_else(wrong)?.to_vec()
    } else {
        hex::decode(text).or_else(|_| STANDARD.decode(text)).map_err(|_| wrong())?
    };
    let raw: [u8; 32] = raw.try_into().map_err(|_| wrong())?;
    VerifyingKey::new(Algorithm::Ed25519, &raw).map_err(|_| wrong())?;
    Ok(raw)
}
