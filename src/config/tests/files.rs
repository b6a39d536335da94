//! Files: missing, unreadable, and readable by too many.

use std::{fs, os::unix::fs::chown};

use super::{Place, SECRET};
use crate::config::Config;

const NONE: &dyn Fn(&str) -> Option<String> = &|_| None;

fn with_secret() -> String {
    format!("hmac_secret: {SECRET}\nallowed_controllers: [c]\n")
}

#[test]
fn a_missing_file_a_folder_and_a_huge_one_are_one_fault_each() {
    let place = Place::new();
    for (name, says) in
        [("none.yaml", "does not exist"), (".", "is no ordinary file"), ("huge.yaml", "larger than")]
    {
        place.put("huge.yaml", vec![b' '; (1 << 20) + 1]);
        let faults = Config::load(&place.path(name), NONE).expect_err("no configuration");
        assert_eq!(faults.count(), 1);
        assert!(faults.to_string().contains(says), "{faults}");
    }
}

#[test]
fn text_that_is_no_utf8_is_a_fault() {
    let place = Place::new();
    place.put("agent.yaml", [0xff, 0xfe, 0x00]);
    let faults = Config::load(&place.path("agent.yaml"), NONE).expect_err("no text");
    assert!(faults.to_string().ends_with("is not UTF-8 text"), "{faults}");
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    // Root reads everything.
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    place.put("agent.yaml", with_secret());
    place.mode("agent.yaml", 0o000);
    let faults = Config::load(&place.path("agent.yaml"), NONE).expect_err("unreadable");
    assert!(faults.to_string().contains("may not be read"), "{faults}");
}

#[test]
fn a_secret_in_a_file_for_everybody_is_refused_and_without_a_secret_it_is_not() {
    let place = Place::new();
    for (mode, fine) in [(0o600, true), (0o400, true), (0o604, false), (0o644, false)] {
        place.put("agent.yaml", with_secret());
        place.mode("agent.yaml", mode);
        let loaded = Config::load(&place.path("agent.yaml"), NONE);
        assert_eq!(loaded.is_ok(), fine, "{mode:o}");
        if let Err(faults) = loaded {
            assert_eq!(faults.count(), 1);
            assert!(faults.to_string().contains("hmac_secret: is a secret, and every user"), "{faults}");
        }
    }
    place.put("agent.yaml", "hmac_secret: CHANGE_ME\n");
    place.mode("agent.yaml", 0o644);
    let faults = Config::load(&place.path("agent.yaml"), NONE).expect_err("two faults").to_string();
    assert!(
        faults.contains("placeholder") && faults.contains("every user"),
        "a weak secret hides nothing: {faults}"
    );
    place.put("agent.yaml", "port: 8443\n");
    place.mode("agent.yaml", 0o644);
    assert!(Config::load(&place.path("agent.yaml"), NONE).is_ok());
}

#[test]
fn a_configuration_that_everybody_may_change_is_refused() {
    let place = Place::new();
    place.put("agent.yaml", "port: 8443\n");
    place.mode("agent.yaml", 0o602);
    let faults = Config::load(&place.path("agent.yaml"), NONE).expect_err("writable");
    assert!(faults.to_string().contains("may be changed by every user"), "{faults}");
}

#[test]
fn secret_files_keys_and_own_secrets_are_held_to_the_same() {
    let place = Place::new();
    place.pair("a");
    place.put("s", SECRET);
    let text =
        "tls_cert_file: a-cert.pem\ntls_key_file: a-key.pem\nhmac_secret_file: s\nallowed_controllers: [c]\n";
    // A certificate is public.
    place.mode("a-cert.pem", 0o644);
    assert!(place.load(text).is_ok());
    place.mode("a-key.pem", 0o644);
    place.mode("s", 0o604);
    let faults = place.faults(text);
    assert_eq!(faults.lines().count(), 2, "{faults}");
    assert!(
        faults.contains("tls_key_file: the file it names holds a private key, and every user"),
        "{faults}"
    );
    assert!(
        faults.contains("hmac_secret_file: the file it names holds a secret, and every user"),
        "{faults}"
    );
}

#[test]
fn a_secret_that_a_group_other_than_the_agents_may_read_is_refused() {
    // Only root may give a file to a group that it is not in.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let path = place.put("agent.yaml", with_secret());
    chown(&path, None, Some(54_321)).expect("root may");
    place.mode("agent.yaml", 0o640);
    let faults = Config::load(&path, NONE).expect_err("a fault").to_string();
    assert!(faults.contains("hmac_secret: is a secret, and the group 54321 may read this file"), "{faults}");
    place.mode("agent.yaml", 0o600);
    assert!(Config::load(&path, NONE).expect("no fault").warnings.is_empty());

    let secret = place.put("s", SECRET);
    chown(&secret, None, Some(54_321)).expect("root may");
    place.mode("s", 0o640);
    let text = "hmac_secret_file: s\nallowed_controllers: [c]\n";
    let faults = place.faults(text);
    assert!(
        faults.contains("hmac_secret_file: the file it names holds a secret, and the group 54321"),
        "{faults}"
    );
    chown(&secret, None, Some(0)).expect("root may");
    assert!(place.load(text).is_ok(), "root may read it anyway");
    // A group of the user that the agent becomes: that of Debian's `backup`, say, which has the same number everywhere.
    let Ok(Some(user)) = nix::unistd::User::from_name("backup") else { return };
    chown(&secret, None, Some(user.gid.as_raw())).expect("root may");
    assert!(place.faults(text).contains("may read it"));
    assert!(place.load(&format!("{text}run_as_user: backup\n")).is_ok());
    fs::remove_file(&path).expect("ours");
}
