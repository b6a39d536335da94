//! "From the two programs alone" of docs/operations.md, run as it stands there: only the port, the agent's name and, where
//! the tests have another one, the image are this test's.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::harness::{PATIENCE, free_port, image, unique};

/// The shell blocks of that section.
fn blocks() -> Vec<&'static str> {
    let page = include_str!("../../docs/operations.md");
    let section = page.split_once("### From the two programs alone\n").expect("the section").1;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    section.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect()
}

/// A shell in that folder, with the two programs and nothing of our own settings.
fn shell(script: &str, folder: &Path) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_quickcmd")).parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.args(["-e", "-c", script]).current_dir(folder).stdin(Stdio::null());
    command.env_clear().env("HOME", folder).env("PATH", format!("{}:{path}", programs.display()));
    command
}

/// The agent in its terminal, and its containers; gone with the test.
struct Terminal {
    child: Child,
    agent_id: String,
}

impl Terminal {
    fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        let _gone = killpg(group, signal);
    }

    fn containers(&self) -> Vec<String> {
        let label = format!("label=com.quickcmd.agent={}", self.agent_id);
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output().expect("docker");
        String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ended = self.child.wait();
        for container in self.containers() {
            let _removed = Command::new("docker").args(["rm", "-fv", &container]).output();
        }
    }
}

fn text(output: &Output) -> String {
    let of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{:?}\n{}{}", output.status.code(), of(&output.stdout), of(&output.stderr))
}

#[test]
fn the_two_programs_are_enough() {
    let folder = tempfile::Builder::new().prefix("quickcmd-alone-").tempdir().expect("a folder");
    let (port, image) = (free_port().to_string(), image());
    let agent_id = format!("alone-{}-{}", std::process::id(), unique());
    let blocks: Vec<String> = blocks()
        .into_iter()
        .map(|block| {
            block.replace("8443", &port).replace("first-agent", &agent_id).replace("alpine:latest", &image)
        })
        .collect();
    let [first, second] = blocks.as_slice() else { panic!("two blocks are expected: {blocks:#?}") };
    for word in [&port, &agent_id, &image] {
        assert!(first.contains(word.as_str()), "{word} has no place in {first}");
    }

    let log = fs::File::create(folder.path().join("log")).expect("a file");
    let mut command = shell(first, folder.path());
    command.stdout(log.try_clone().expect("a file")).stderr(log).process_group(0);
    let mut terminal = Terminal { child: command.spawn().expect("a shell"), agent_id };
    let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();

    let here = folder.path().join("quickcmd-here");
    let ask = format!(
        "quickcmd --url https://127.0.0.1:{port} --ca cert.pem --json health | grep '\"ready\":true'"
    );
    let end = Instant::now() + PATIENCE;
    while !(here.join("cert.pem").exists() && shell(&ask, &here).output().expect("a shell").status.success())
    {
        let ended = terminal.child.try_wait().expect("a child of ours");
        assert!(ended.is_none() && Instant::now() < end, "the agent is not ready: {}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let done = shell(second, &here).output().expect("a shell");
    assert!(done.status.success(), "{}\n{}", text(&done), log());
    assert!(text(&done).contains("hello from sandbox, uid 65532\n"), "{}", text(&done));

    // Ctrl-C.
    terminal.signal(Signal::SIGINT);
    let end = Instant::now() + PATIENCE;
    while terminal.child.try_wait().expect("a child of ours").is_none() {
        assert!(Instant::now() < end, "the agent does not stop: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(terminal.containers(), Vec::<String>::new(), "{}", log());
}
