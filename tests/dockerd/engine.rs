//! A Docker engine of a test's own, with its own containerd: folders, socket and process ids are its own, so that it can be
//! stopped without anybody else's notice.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use quickcmd::sandbox::LABEL_AGENT;

use crate::harness::{Agent, PATIENCE, image, signal, until};

/// Puts its file over those of the host, in mounts of its own, and becomes containerd.
const REMAP: &str = "for file in /etc/subuid /etc/subgid; do [ -e $file ] || : >$file; mount --bind \"$0\" $file; done; \
                     exec containerd \"$@\"";
/// How long its parts may take to end when the test is over.
const FAREWELL: Duration = Duration::from_secs(20);

pub struct Dockerd {
    dir: tempfile::TempDir,
    /// For dockerd, besides what every one is told.
    more: Vec<String>,
    containerd: Child,
    dockerd: Option<Child>,
}

/// An engine that does nothing; dropped, it goes on.
pub struct Frozen {
    pid: u32,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.pid, Signal::SIGCONT);
    }
}

impl Dockerd {
    /// An engine that has the tests' image.
    pub async fn start(live_restore: bool) -> Dockerd {
        let more = if live_restore { vec!["--live-restore".to_owned()] } else { Vec::new() };
        Dockerd::started(more, None).await
    }

    /// The same, whose containers have the user ids (and group ids) from `first` on, 65,536 of them.
    pub async fn start_remapped(first: u32) -> Dockerd {
        // The ids are a user's that every host has; Docker asks for no more than the name and its line.
        let more = vec!["--userns-remap".to_owned(), "nobody:nogroup".to_owned()];
        Dockerd::started(more, Some(&format!("nobody:{first}:65536\n"))).await
    }

    /// `subordinate`: what it finds in `/etc/subuid` and `/etc/subgid`, and nobody else does.
    async fn started(more: Vec<String>, subordinate: Option<&str>) -> Dockerd {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "these tests start a Docker engine of their own, which takes root: run them as root"
        );
        let dir = tempfile::Builder::new().prefix("quickcmd-dockerd-").tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n",
            at("containerd-root"),
            at("containerd-state"),
            at("containerd.sock")
        );
        fs::write(dir.path().join("containerd.toml"), config).expect("written");
        // The host's own daemon.json is not for this one.
        fs::write(dir.path().join("daemon.json"), "{}").expect("written");
        fs::write(dir.path().join("subordinate"), subordinate.unwrap_or_default()).expect("written");
        // Both in mounts of their own, where `/etc` is as it is to be for them. Root of a container passes through here.
        let mut containerd = match subordinate {
            None => Command::new("containerd"),
            Some(_) => {
                fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("a mode");
                let mut command = Command::new("unshare");
                command.args(["--mount", "--", "/bin/sh", "-ec", REMAP, &at("subordinate")]);
                command
            }
        };
        let containerd = containerd
            .args(["--config", &at("containerd.toml"), "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(dir.path(), "containerd.log"))
            .spawn()
            .expect("containerd is installed");
        let mut engine = Dockerd { dir, more, containerd, dockerd: None };
        let socket = engine.dir.path().join("containerd.sock");
        until("containerd listens", PATIENCE, async || socket.exists()).await;
        engine.up().await;
        engine.copy_image();
        engine
    }

    /// Starts it, again, and waits until it answers.
    pub async fn up(&mut self) {
        self.spawn();
        let end = Instant::now() + PATIENCE;
        while !self.answers() {
            if let Some(status) = self.dockerd.as_mut().and_then(|child| child.try_wait().expect("a child")) {
                panic!("dockerd ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < end, "dockerd does not answer:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn spawn(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        // In a network of its own: told to have no bridge, dockerd removes docker0, which is the machine's own engine's.
        // In the mounts of its containerd, which may be the host's. Each of these becomes the next, so that the process id
        // is dockerd's.
        let mut command = Command::new("nsenter");
        command
            .args([&format!("--mount=/proc/{}/ns/mnt", self.containerd.id()), "--", "unshare"])
            .args(["--net", "--", "dockerd"])
            .args([
                "--config-file",
                &at("daemon.json"),
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
            ])
            .args(["--host", &self.host(), "--pidfile", &at("pid"), "--containerd", &at("containerd.sock")])
            .args(["--bridge", "none", "--iptables=false", "--ip-forward=false", "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(self.dir.path(), "dockerd.log"));
        command.args(&self.more);
        // One that was killed leaves its file, whose process id may be somebody else's by now.
        let _ = fs::remove_file(self.dir.path().join("pid"));
        self.dockerd = Some(command.spawn().expect("dockerd is installed"));
    }

    fn answers(&self) -> bool {
        self.docker(&["version"]).status.success()
    }

    fn copy_image(&self) {
        let file = self.dir.path().join("image.tar").display().to_string();
        let saved =
            Command::new("docker").args(["save", "--output", &file, &image()]).output().expect("docker");
        assert!(saved.status.success(), "docker save: {}", String::from_utf8_lossy(&saved.stderr));
        let loaded = self.docker(&["load", "--input", &file]);
        assert!(loaded.status.success(), "docker load: {}", String::from_utf8_lossy(&loaded.stderr));
    }

    /// As `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// The docker client, for this engine.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("docker").env("DOCKER_HOST", self.host()).args(arguments).output().expect("docker")
    }

    /// Waits until it has no container of that agent, in any state.
    pub async fn no_container_left(&self, agent: &Agent) {
        let filter = format!("label={LABEL_AGENT}={}", agent.id);
        until(&format!("no container is left\n{}", agent.log()), PATIENCE, async || {
            let said = self.docker(&["ps", "-aq", "--filter", &filter]);
            said.status.success() && said.stdout.is_empty()
        })
        .await;
    }

    /// SIGTERM, as an orderly stop sends it; waits for its end.
    pub async fn stop(&mut self) {
        let mut child = self.dockerd.take().expect("it runs");
        signal(child.id(), Signal::SIGTERM);
        let end = Instant::now() + PATIENCE;
        while child.try_wait().expect("a child").is_none() {
            if Instant::now() > end {
                let _ = child.kill();
                panic!("dockerd does not stop:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.dockerd.take().expect("it runs");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// SIGSTOP, until the guard is dropped.
    pub fn freeze(&self) -> Frozen {
        let pid = self.dockerd.as_ref().expect("it runs").id();
        signal(pid, Signal::SIGSTOP);
        Frozen { pid }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("dockerd.log")).unwrap_or_default()
    }

    /// Ends one of its processes, by force if it must be.
    fn end(child: &mut Child) {
        let Ok(None) = child.try_wait() else { return };
        signal(child.id(), Signal::SIGTERM);
        let end = Instant::now() + FAREWELL;
        while let Ok(None) = child.try_wait() {
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Shims outlive their containerd, and containers their dockerd: those of a test that failed in the middle.
    fn end_what_is_left(&self) {
        let mine = self.dir.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if command.contains("containerd-shim") && command.contains(&mine) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with(&mine) {
                let _ = Command::new("umount").args(["--lazy", mount]).output();
            }
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("dockerd's log:\n{}", self.log());
        }
        if self.dockerd.is_none() {
            self.spawn();
        }
        let end = Instant::now() + FAREWELL;
        while !self.answers() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        let left = self.docker(&["ps", "-aq"]).stdout;
        for id in String::from_utf8_lossy(&left).lines() {
            self.docker(&["rm", "-fv", id]);
        }
        if let Some(dockerd) = &mut self.dockerd {
            Dockerd::end(dockerd);
        }
        Dockerd::end(&mut self.containerd);
        self.end_what_is_left();
    }
}

fn log(dir: &Path, name: &str) -> fs::File {
    fs::File::options().create(true).append(true).open(dir.join(name)).expect("a log file")
}
