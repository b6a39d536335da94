//! `quickcmd-agent` as a process: what it says of a configuration, and with which exit code, before it opens anything.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use insta::assert_snapshot;
use tempfile::TempDir;

const SECRET: &str = "4f2d9c1b7a6e5038d1c2b3a4958677685f4e3d2c1b0a99887766554433221100";

/// A folder with a configuration in it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::Builder::new().prefix("quickcmd-cli-").tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self) -> PathBuf {
        self.path().join("agent.yaml")
    }

    /// Writes the configuration, `DIR` being this folder.
    fn put(&self, text: &str, mode: u32) {
        let text = text.replace("DIR", self.path().to_str().expect("UTF-8"));
        fs::write(self.config(), text).expect("a file");
        fs::set_permissions(self.config(), fs::Permissions::from_mode(mode)).expect("its mode");
    }

    /// Exit code, stdout and stderr.
    fn run(&self, more: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
            .arg("--config")
            .arg(self.config())
            .args(more)
            .stdin(Stdio::null())
            .env_remove("NOTIFY_SOCKET")
            .output()
            .expect("the program");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            !stdout.contains(SECRET) && !stderr.contains(SECRET),
            "the secret is shown:\n{stdout}{stderr}"
        );
        let code = output.status.code().expect("it ended by itself");
        format!("exit: {code}\n--- stdout\n{stdout}--- stderr\n{stderr}")
            .replace(self.path().to_str().expect("UTF-8"), "DIR")
    }

    /// What `--check` says of the text. Started with it, the agent must say the same, and touch nothing.
    fn check(&self, text: &str, mode: u32) -> String {
        self.put(text, mode);
        let checked = self.run(&["--check"]);
        if checked.starts_with("exit: 64\n") {
            assert_eq!(self.run(&[]), checked, "a start says what the check says");
        }
        assert!(!self.path().join("data").exists(), "neither makes the data folder");
        checked
    }
}

/// A configuration without faults, and without a Docker.
fn good(port: u16) -> String {
    format!(
        "listen: 127.0.0.1\nport: {port}\nagent_id: here\nrun_as_user: no-such-user\naudit_db_path: DIR/data/agent-audit.db\n\
         hmac_secret: {SECRET}\nallowed_controllers: [controller-1]\ndocker_host: unix://DIR/docker.sock\n"
    )
}

#[test]
fn a_good_configuration_is_described() {
    assert_snapshot!(Place::new().check(&good(8443), 0o600));
}

#[test]
fn the_examples_placeholder_is_no_secret() {
    let text = good(8443).replace(SECRET, "\"CHANGE_ME\"");
    assert_snapshot!(Place::new().check(&text, 0o600));
}

#[test]
fn a_short_secret_is_refused() {
    let text = good(8443).replace(SECRET, &SECRET[..16]);
    assert_snapshot!(Place::new().check(&text, 0o600));
}

#[test]
fn an_unknown_key_is_named_with_what_it_may_mean() {
    assert_snapshot!(
        Place::new().check(&good(8443).replace("allowed_controllers", "alowed_controllers"), 0o600)
    );
}

#[test]
fn a_port_out_of_range_is_refused() {
    assert_snapshot!(Place::new().check(&good(8443).replace("8443", "65536"), 0o600));
}

#[test]
fn a_missing_file_is_named() {
    let place = Place::new();
    assert_snapshot!("missing_configuration", place.run(&["--check"]));
    assert_eq!(place.run(&[]), place.run(&["--check"]));
    let text = good(8443) + "tls_cert_file: DIR/cert.pem\ntls_key_file: DIR/key.pem\n";
    assert_snapshot!("missing_certificate", place.check(&text, 0o600));
}

#[test]
fn a_secret_that_everybody_can_read_is_refused() {
    assert_snapshot!(Place::new().check(&good(8443), 0o644));
}

#[test]
fn beyond_this_host_a_certificate_is_needed() {
    assert_snapshot!(Place::new().check(&good(8443).replace("127.0.0.1", "0.0.0.0"), 0o600));
}

#[test]
fn all_faults_come_at_once() {
    let text =
        good(8443).replace("8443", "70000").replace(SECRET, "CHANGE_ME").replace("127.0.0.1", "0.0.0.0")
            + "colour: blue\ndefault_image: debian:latest\ntls_key_file: DIR/key.pem\n";
    assert_snapshot!(Place::new().check(&text, 0o644));
}

#[test]
fn a_folder_that_is_none_is_found_by_the_check() {
    let place = Place::new();
    fs::write(place.path().join("file"), "").expect("a file");
    place.put(&good(8443).replace("DIR/data/", "DIR/file/"), 0o600);
    assert_snapshot!("folder_is_a_file", place.run(&["--check"]));
    place.put(&(good(8443) + "data_dir: DIR/elsewhere\n"), 0o600);
    assert_snapshot!("folder_of_the_database_is_missing", place.run(&["--check"]));
    assert!(!place.path().join("elsewhere").exists(), "the check makes nothing");
}

#[test]
fn what_docker_host_is_the_check_says_and_only_what_it_can_not_be_is_a_fault() {
    let place = Place::new();
    let socket = place.path().join("docker.sock");
    let said = |place: &Place| place.run(&["--check"]);
    place.put(&good(8443), 0o600);
    let missing = said(&place);
    assert!(missing.starts_with("exit: 0\n"), "{missing}");
    assert!(
        missing.contains("warning:        there is no Docker socket at docker_host unix://DIR/docker.sock: "),
        "{missing}"
    );

    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    drop(listener);
    let silent = said(&place);
    assert!(silent.starts_with("exit: 0\n"), "{silent}");
    assert!(
        silent.contains("nothing answers on the Docker socket at docker_host unix://DIR/docker.sock: "),
        "{silent}"
    );
    assert!(!silent.contains("hyper"), "{silent}");

    fs::remove_file(&socket).expect("it is there");
    fs::write(&socket, "").expect("a file");
    let file = said(&place);
    assert!(file.starts_with("exit: 64\n"), "{file}");
    assert!(
        file.contains("docker_host") && file.contains("DIR/docker.sock is no socket: name the one"),
        "{file}"
    );

    place.put(&good(8443).replace("unix://DIR/docker.sock", "tcp://127.0.0.1:2375"), 0o600);
    let port = said(&place);
    assert!(
        port.starts_with("exit: 64\n") && port.contains("only unix:///path/to/docker.sock is possible"),
        "{port}"
    );
}

#[test]
fn without_a_docker_sandboxes_are_not_listed_but_it_is_said_why() {
    let place = Place::new();
    place.put(&good(8443), 0o600);
    assert_snapshot!(place.run(&["sandboxes"]));
}

/// The filter's start, where there is no Docker. It reads no configuration.
#[test]
fn a_filter_without_a_docker_says_what_to_do() {
    let place = Place::new();
    fs::write(place.path().join("file"), "").expect("a file");
    let start = |docker: &str, sandboxes: &str| {
        let path = |name: &str| place.path().join(name).to_str().expect("UTF-8").to_owned();
        let listen = path("filter.sock");
        let said = place.run(&[
            "docker-filter",
            "--listen",
            &listen,
            "--docker",
            &path(docker),
            "--sandboxes",
            sandboxes,
        ]);
        assert!(!Path::new(&listen).exists(), "it has not begun");
        said
    };
    assert_snapshot!(
        ["docker.sock", "file", "filter.sock"].map(|docker| start(docker, "/sandboxes")).join("\n")
            + "\n"
            + &start("docker.sock", "sandboxes")
    );
}

#[test]
fn faults_are_found_before_a_port_is_opened() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port();
    place.put(&good(port).replace(SECRET, "CHANGE_ME"), 0o600);
    let said = place.run(&[]);
    assert!(said.starts_with("exit: 64\n") && said.contains("hmac_secret"), "{said}");
    // Without the fault it gets as far as the port, and no further.
    place.put(&good(port), 0o600);
    let said = place.run(&[]);
    assert!(
        said.starts_with("exit: 71\n") && said.contains(&format!("port {port} on 127.0.0.1 is in use")),
        "{said}"
    );
}

#[test]
fn a_command_line_that_can_not_be_understood_ends_with_64_too() {
    let place = Place::new();
    let said = place.run(&["--chek"]);
    assert!(said.starts_with("exit: 64\n") && said.contains("--check"), "{said}");
    for more in ["--help", "--version"] {
        let said = place.run(&[more]);
        assert!(said.starts_with("exit: 0\n") && said.ends_with("--- stderr\n"), "{said}");
    }
}

#[test]
fn a_check_beside_a_verb_is_refused_and_the_verb_not_run() {
    let place = Place::new();
    place.put(&good(8443), 0o600);
    for verb in [&["drain"][..], &["undrain"], &["verify-db"], &["gen-key"], &["sandboxes", "--remove"]] {
        let said = place.run(&[&["--check"], verb].concat());
        assert!(said.starts_with("exit: 64\n--- stdout\n--- stderr\n"), "{said}");
        assert!(said.contains("--check stands alone"), "{said}");
    }
}

#[test]
fn an_answer_that_nobody_can_read_is_no_panic() {
    let place = Place::new();
    place.put(&good(8443), 0o600);
    let run = |more: &[&str], stdout: Stdio, stderr: Stdio| {
        let output = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
            .arg("--config")
            .arg(place.config())
            .args(more)
            .stdout(stdout)
            .stderr(stderr)
            .output()
            .expect("the program");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // A pipe whose reader has gone before the first byte.
    let broken = || Stdio::from(std::io::pipe().expect("a pipe").1);
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there"));
    for verb in ["--check", "gen-key"] {
        assert_eq!(run(&[verb], broken(), Stdio::piped()), (Some(141), String::new()), "{verb}");
        let (code, said) = run(&[verb], full(), Stdio::piped());
        assert!(code == Some(74) && said.contains("could not be written"), "{verb}: {code:?} {said}");
        assert_eq!(run(&[verb], full(), broken()).0, Some(74), "{verb}");
    }
    assert_eq!(run(&["verify-db"], Stdio::piped(), full()).0, Some(71), "the fault counts, told or not");
}

#[test]
fn a_fresh_secret_is_printed_and_good_enough() {
    let place = Place::new();
    let said = place.run(&["gen-key"]);
    let secret = said.lines().nth(2).expect("a line");
    assert!(secret.len() == 64 && secret.chars().all(|c| c.is_ascii_hexdigit()), "{said}");
    let said = place.check(&good(8443).replace(SECRET, secret), 0o600);
    assert!(said.starts_with("exit: 0\n") && !said.contains(secret), "{said}");
}

/// The exit codes that docs/operations.md gives a verb, beside those that every one may have.
fn documented(verb: &str) -> Vec<i32> {
    let page = include_str!("../docs/operations.md");
    let rows = page.split_once("| verb | exit codes |").expect("the table").1;
    let row = format!("| {verb} | ");
    let codes =
        rows.lines().find_map(|line| line.strip_prefix(&row)).unwrap_or_else(|| panic!("no row {row}"));
    codes.split("; ").filter_map(|code| code.split_once(' ')?.0.parse().ok()).collect()
}

#[test]
fn every_verb_ends_as_is_documented() {
    let place = Place::new();
    place.put(&good(8443), 0o600);
    let common = [0, 64, 70, 74, 141];
    let dir = place.path().to_str().expect("UTF-8");
    let (file, socket) = (format!("{dir}/file"), format!("{dir}/none/filter.sock"));
    // A Docker's that it has left.
    let (none, left) = (format!("{dir}/none.sock"), format!("{dir}/left.sock"));
    drop(std::os::unix::net::UnixListener::bind(&left).expect("a socket"));
    fs::create_dir(place.path().join("data")).expect("a folder");
    for (verb, arguments, code) in [
        ("`--check`", &["--check"][..], 0),
        ("`backup`", &["backup", "--to", &file], 71),
        ("`restore`", &["restore", "--from", &file], 71),
        ("`verify-db`", &["verify-db"], 71),
        ("`sandboxes`", &["sandboxes"], 69),
        ("`drain`", &["drain"], 69),
        ("`undrain`", &["undrain"], 69),
        ("`token create`", &["token", "create", "--scope", "read", "--controller", "nobody"], 69),
        ("`token create`", &["token", "create", "--scope", "read"], 71),
        ("`token list`", &["token", "list"], 71),
        ("`token revoke`", &["token", "revoke", "0123456789abcdef"], 71),
        ("`gen-key`", &["gen-key"], 0),
        ("`docker-filter`", &["docker-filter", "--sandboxes", "relative"], 64),
        ("`docker-filter`", &["docker-filter", "--docker", &none], 69),
        ("`docker-filter`", &["docker-filter", "--docker", &left, "--listen", &socket], 71),
    ] {
        let said = place.run(arguments);
        assert!(said.starts_with(&format!("exit: {code}\n")), "{verb}: {said}");
        let documented = documented(verb);
        assert!(
            documented.contains(&code) || common.contains(&code),
            "{verb}: {code} is not in {documented:?}"
        );
        if code != 0 {
            assert_eq!(said.matches("quickcmd-agent: ").count(), 1, "one sentence: {said}");
        }
    }
    assert_eq!(documented("`token revoke`"), [69, 71], "the first is in tests/it/tokens.rs");
    assert_eq!(documented("`preflight`"), [1]);
    // No verb is forgotten.
    let help = place.run(&["--help"]);
    let verbs =
        help.split_once("Commands:\n").and_then(|(_, rest)| rest.split_once("\n\n")).expect("a list").0;
    // What is deeper is the rest of a long sentence.
    let own = |line: &&str| line.strip_prefix("  ").is_some_and(|rest| !rest.starts_with(' '));
    let verbs: Vec<&str> =
        verbs.lines().filter(own).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 8, "{help}");
    for verb in verbs.into_iter().filter(|verb| !["help", "token"].contains(verb)) {
        documented(&format!("`{verb}`"));
    }
    assert!(help.contains("69   refused as things stand"), "{help}");
}

#[test]
fn a_data_folder_that_can_not_be_made_is_named_with_a_remedy() {
    let place = Place::new();
    fs::write(place.path().join("file"), "").expect("a file");
    place.put(&good(8443).replace("DIR/data/", "DIR/file/"), 0o600);
    let said = place.run(&[]);
    assert!(said.starts_with("exit: 71\n"), "{said}");
    for word in ["data folder DIR/file", "a file is in the place of a folder", "`data_dir`"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}
