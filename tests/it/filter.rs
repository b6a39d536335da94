//! The agent behind the Docker filter, on real Docker: all that it does works, and nothing else does.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::{Agent, CONTROLLER, PATIENCE, Setup, cancel, image, unique, until};

const DOCKER: &str = "/var/run/docker.sock";

/// A filter as a process, for one agent.
pub struct Filter {
    child: Child,
    pub socket: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
}

impl Filter {
    pub fn start(agent: &Agent, more: &[&str]) -> Filter {
        let dir = agent.dir.path();
        let mut arguments = vec!["--sandboxes".to_owned(), format!("{}/data/sandboxes", dir.display())];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let (socket, log) = (dir.join("filter.sock"), dir.join("filter.log"));
        let child = Filter::launch(&socket, &log, &arguments);
        Filter { child, socket, log, arguments }
    }

    fn launch(socket: &Path, log: &Path, arguments: &[String]) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
            .args(["docker-filter", "--docker", DOCKER, "--listen"])
            .arg(socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the agent's program starts");
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < end, "the filter does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    fn restart(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.child = Filter::launch(&self.socket, &self.log, &self.arguments);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends these bytes and reads until the filter closes the connection.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // It may have refused, and closed, before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One call; the status and the message or body.
    fn call(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let answer = self.raw(&format!(
            "{method} {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            true => (status, unchunked(body)),
            false => (status, body.to_owned()),
        }
    }
}

/// A body that came in chunks, to its last one.
fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(length, 16).expect("a number");
        if length == 0 {
            return whole;
        }
        whole.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the filter's log:\n{}", self.log());
        }
    }
}

/// An agent that has no way to Docker but the filter.
async fn behind(config: &str, more: &[&str]) -> (Agent, Filter) {
    let mut agent = Agent::prepare(&Setup { config: config.to_owned(), signed_reads: false });
    let filter = Filter::start(&agent, more);
    let file = agent.dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&file).expect("written by the harness");
    std::fs::write(&file, format!("{text}\ndocker_host: unix://{}\n", filter.socket.display()))
        .expect("written");
    agent.launch();
    agent.until_ready().await;
    (agent, filter)
}

fn docker(arguments: &[&str]) -> String {
    let ran = Command::new("docker").args(arguments).output().expect("docker is there");
    assert!(ran.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_the_agent_does_passes_the_filter() {
    let image = image();
    let config = "pool: {size: 1, max: 2}\ngrace: 1s\n";
    let (mut agent, mut filter) = behind(config, &["--image", &image]).await;
    // From the pool, with its limits changed, and cold.
    until("a sandbox waits", PATIENCE, async || agent.metric("quickcmd_agent_pool_depth").await >= 1.0).await;
    let limits = json!({"sandbox": {"memory_limit": 64 << 20, "pids_limit": 32}});
    let first = agent.run_with("echo out; echo err >&2; exit 7", limits).await;
    assert_eq!(
        (&first["exit_code"], &first["stdout"], &first["stderr"]),
        (&json!(7), &json!("out\n"), &json!("err\n"))
    );
    let updates = "quickcmd_agent_docker_calls_total{call=\"update\",outcome=\"ok\"}";
    assert_eq!(agent.metric(updates).await, 1.0, "the waiting one was changed");
    let cold = agent.run_with("df /tmp", json!({"sandbox": {"tmpfs_size": 1 << 20}})).await;
    assert_eq!(cold["exit_code"], 0, "{cold}");

    // Ended by a deadline, and by a wish.
    let late = agent.run_with("sleep 300", json!({"sandbox": {"timeout_seconds": 1}})).await;
    assert_eq!(late["reason"], "timeout", "{late}");
    let endless = agent.submit("sleep 300").await;
    agent.until_status(&endless, "running").await;
    let (status, answer) =
        agent.post_to(&format!("/api/v1/jobs/{endless}/cancel"), cancel(&endless, CONTROLLER)).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(agent.ended(&endless).await["reason"], "cancelled");

    // An agent that dies and finds its job again; a filter that dies and knows none of its containers.
    let kept = agent.submit("echo begin; sleep 3; echo end; exit 3").await;
    let wanted = agent.submit("sleep 300").await;
    agent.until_status(&kept, "running").await;
    agent.until_status(&wanted, "running").await;
    agent.kill_and_restart().await;
    filter.restart();
    let end = agent.ended(&kept).await;
    assert_eq!(
        (&end["result"]["exit_code"], &end["result"]["stdout"]),
        (&json!(3), &json!("begin\nend\n")),
        "{end}"
    );
    let body = cancel(&wanted, CONTROLLER);
    let (status, answer) = agent.post_to(&format!("/api/v1/jobs/{wanted}/cancel"), body).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(agent.ended(&wanted).await["reason"], "cancelled");

    // The operator's verb goes the same way.
    let ran = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
        .args(["sandboxes", "--json", "--config"])
        .arg(agent.dir.path().join("agent.yaml"))
        .output()
        .expect("the agent's program starts");
    assert!(ran.status.success(), "{ran:?}");

    assert_eq!(agent.run("echo again").await["stdout"], "again\n");
    assert_eq!(agent.terminate(), Some(0));
    // What was being made when the agent, or its way to Docker, was killed nobody knows of before a sweep, the first of
    // which a start does; what a busy Docker has not removed in the agent's last seconds goes with it.
    let file = agent.dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&file).expect("written by the harness");
    std::fs::write(&file, text.replace("pool: {size: 1, max: 2}", "pool: {size: 0, max: 0}"))
        .expect("written");
    agent.launch();
    agent.until_ready().await;
    agent.no_container_left().await;
    assert_eq!(agent.no_folder_left().await, None);
    assert!(!filter.log().contains("refused"), "{}", filter.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_through_the_filter_if_it_is_on_the_list() {
    let registry = Registry::start();
    let listed = format!("127.0.0.1:{}/quickcmd/pulled-{}:1", registry.port, unique());
    let other = format!("127.0.0.1:{}/quickcmd/other-{}:1", registry.port, unique());
    // The harness's own policy is "never"; the last one of a key would be a fault, so it is replaced below.
    let config = format!("allowed_images: [\"{0}\", \"{listed}\", \"{other}\"]\n", image());
    let mut agent = Agent::prepare(&Setup { config, signed_reads: false });
    let filter = Filter::start(&agent, &["--image", &image(), "--image", &listed]);
    let file = agent.dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&file).expect("written by the harness");
    let text = text.replace("pull_policy: \"never\"", "pull_policy: \"if-not-present\"");
    std::fs::write(&file, format!("{text}\ndocker_host: unix://{}\n", filter.socket.display()))
        .expect("written");
    agent.launch();
    agent.until_ready().await;

    // There is no program in it: that the job could be tried at all takes the image, a container and the supervisor.
    let result = agent.run_with("", json!({"argv": ["/nothing"], "sandbox": {"image": listed}})).await;
    assert_eq!(result["exit_code"], 127, "{result}\n{}", filter.log());
    let refused = agent.run_with("true", json!({"sandbox": {"image": other}})).await;
    assert_eq!(refused["reason"], "sandbox_error", "{refused}");
    assert!(refused["error"].as_str().is_some_and(|why| why.contains("none of the images")), "{refused}");
    assert!(filter.log().contains("none of the images"), "{}", filter.log());
    assert!(!registry.asked().iter().any(|path| path.contains("other")), "{:?}", registry.asked());
    assert_eq!(agent.terminate(), Some(0));
    agent.no_container_left().await;
    docker(&["image", "rm", "--force", &listed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_taken_over_reaches_nothing_else() {
    let image = image();
    let (agent, filter) = behind("", &[]).await;
    let name = format!("not-the-agents-{}-{}", std::process::id(), unique());
    // Named and labelled like the agent's, too: it is the mount that it lacks.
    let like = format!("quickcmd-0123abcd-{}-{}", std::process::id(), unique());
    let ids: Vec<String> = [&name, &like]
        .map(|name| {
            docker(&[
                "run",
                "-d",
                "--network=none",
                "--label=com.quickcmd.home=0123abcd",
                "--name",
                name,
                &image,
                "sleep",
                "600",
            ])
        })
        .into();
    let _remove = Remove(ids.clone());
    for id in &ids {
        for (method, target) in [
            ("GET", format!("/containers/{id}/json")),
            ("POST", format!("/containers/{id}/kill?signal=SIGKILL")),
            ("POST", format!("/containers/{id}/wait?condition=not-running")),
            ("POST", format!("/containers/{id}/start")),
            ("DELETE", format!("/containers/{id}?force=true&v=true")),
        ] {
            let (status, said) = filter.call(method, &target, "");
            assert_eq!(status, 403, "{method} {target}: {said}");
            assert!(said.contains("not the agent's"), "{said}");
        }
        let limits =
            json!({"Memory": 1 << 30, "MemorySwap": 1 << 30, "NanoCpus": 1_000_000_000, "PidsLimit": 100});
        let (status, said) = filter.call("POST", &format!("/containers/{id}/update"), &limits.to_string());
        assert_eq!(status, 403, "{said}");
        assert_eq!(docker(&["inspect", "--format", "{{.State.Running}}", id]), "true");
    }
    let (status, said) = filter.call("GET", &format!("/containers/{like}/json"), "");
    assert_eq!(status, 403, "{said}");

    // Nor are they in a list, whose label they have; its own ones are.
    let list = |home: &str| {
        let filters = format!("%7B%22label%22%3A%5B%22com.quickcmd.home%3D{home}%22%5D%7D");
        filter.call("GET", &format!("/containers/json?all=true&filters={filters}"), "")
    };
    let own = agent.submit("sleep 600").await;
    agent.until_status(&own, "running").await;
    let containers = agent.containers();
    assert!(!containers.is_empty());
    for id in &containers {
        let home = docker(&["inspect", "--format", "{{index .Config.Labels \"com.quickcmd.home\"}}", id]);
        let (status, said) = list(&home);
        assert_eq!(status, 200, "{said}");
        assert!(said.contains(id), "{id}: {said}");
    }
    let labelled = docker(&["ps", "-aq", "--no-trunc", "--filter", "label=com.quickcmd.home=0123abcd"]);
    assert!(ids.iter().all(|id| labelled.contains(id)), "{labelled}");
    assert_eq!(list("0123abcd"), (200, "[]".to_owned()));

    // What is not there is told as Docker tells it, and nobody has refused anything.
    let gone = "0".repeat(64);
    for (method, target) in [
        ("POST", format!("/containers/{gone}/kill?signal=SIGKILL")),
        ("DELETE", format!("/containers/{gone}?force=true&v=true")),
        ("GET", format!("/containers/{gone}/json")),
    ] {
        let (status, said) = filter.call(method, &target, "");
        assert_eq!(status, 404, "{said}");
        assert!(said.contains("No such container"), "{said}");
    }
    let log = filter.log();
    assert!(log.contains("refused") && !log.contains(&gone), "{log}");

    // A container of nobody's making: nothing is made.
    let made = format!("quickcmd-0123abcd-{}-{}", std::process::id(), unique());
    let body = json!({"Image": image, "HostConfig": {"Privileged": true, "Binds": ["/:/host"]}});
    let (status, said) = filter.call("POST", &format!("/containers/create?name={made}"), &body.to_string());
    assert_eq!(status, 403, "{said}");
    assert_eq!(docker(&["ps", "-aq", "--filter", &format!("name={made}")]), "");
    drop(agent);
}

struct Remove(Vec<String>);

impl Drop for Remove {
    fn drop(&mut self) {
        for id in &self.0 {
            let _ = Command::new("docker").args(["rm", "-fv", id]).output();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_sides_could_read_differently_are_refused() {
    let agent = Agent::prepare(&Setup::default());
    let filter = Filter::start(&agent, &[]);
    let ping = "GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
    assert!(filter.raw(ping).starts_with("HTTP/1.1 200 OK"), "{}", filter.raw(ping));
    let create = "POST /containers/create?name=quickcmd-0123abcd-1 HTTP/1.1\r\nHost: docker\r\n";
    for (what, request, status) in [
        ("a chunked body", format!("{create}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"), 400),
        (
            "two lengths of one body",
            format!("{create}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
            400,
        ),
        (
            "two different lengths",
            format!("{create}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}} "),
            400,
        ),
        ("a body that is too long", format!("{create}Content-Length: 1000000000\r\n\r\n"), 413),
        (
            "a body where there is none",
            "GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
            400,
        ),
        (
            "an upgrade",
            format!(
                "POST /containers/{}/attach?stream=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
                "a".repeat(64)
            ),
            400,
        ),
        ("another protocol", "GET /_ping HTTP/1.0\r\nHost: d\r\n\r\n".to_owned(), 400),
    ] {
        let answer = filter.raw(&request);
        let said = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(said, status.to_string(), "{what}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer:?}");
    }
    // What is no HTTP at all gets 400, or nothing.
    for (what, request) in [
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("a folded header", "GET /_ping HTTP/1.1\r\nHost: d\r\nAccept: a\r\n b\r\n\r\n".to_owned()),
        ("a space before the colon", "GET /_ping HTTP/1.1\r\nHost : d\r\n\r\n".to_owned()),
        ("no HTTP", "\r\n\0\0\0\r\n\r\n".to_owned()),
    ] {
        let answer = filter.raw(&request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer:?}");
    }
    // What follows a refused request on its connection is not looked at.
    let answer = filter.raw(&format!("GET /events HTTP/1.1\r\nHost: d\r\n\r\n{ping}"));
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    // What follows one that passes is the next one.
    let answer = filter.raw(&format!("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n{ping}"));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_docker_the_connection_breaks_and_one_socket_has_one_filter() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("filter.sock");
    let docker = dir.path().join("docker.sock");
    let run = |docker: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"));
        command
            .args(["docker-filter", "--sandboxes", "/nowhere", "--listen"])
            .arg(&socket)
            .arg("--docker")
            .arg(docker);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let none = run(&docker).output().expect("it starts");
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert_eq!(none.status.code(), Some(69), "{said}");
    assert!(
        said.contains(&format!("quickcmd-agent: --docker {} does not exist: start Docker", docker.display())),
        "{said}"
    );

    // A socket that Docker has left: it may come back.
    drop(std::os::unix::net::UnixListener::bind(&docker).expect("a socket"));
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).expect("a file");
    let child = run(&docker).stderr(file).spawn().expect("it starts");
    let filter = Filter { child, socket: socket.clone(), log, arguments: Vec::new() };
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < end, "the filter does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(std::fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o660);
    // Not an answer, which would be an engine that says no.
    assert_eq!(filter.raw("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"), "");
    let warning = format!(
        "WARN quickcmd::agent::verbs::docker_filter: nothing answers on --docker {}",
        docker.display()
    );
    assert!(filter.log().contains(&warning), "{}", filter.log());
    // What is behind a path is what answers there.
    std::fs::remove_file(&docker).expect("it is there");
    std::os::unix::fs::symlink(DOCKER, &docker).expect("a link");
    assert!(filter.raw("GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").contains("200 OK"));
    let second = run(Path::new(DOCKER)).output().expect("it starts");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(71), "{said}");
    assert!(said.contains("somebody listens there already"), "{said}");
}

/// A registry with one image of one empty layer, under every name.
struct Registry {
    port: u16,
    asked: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Registry {
    fn start() -> Registry {
        let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let layer = vec![0_u8; 1024];
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Labels": {"unique": unique().to_string()}},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                       "size": config.len(), "digest": digest(&config)},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": layer.len(), "digest": digest(&layer)}],
        });
        let manifest = manifest.to_string().into_bytes();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let paths = asked.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let blobs = [(digest(&config), config.clone()), (digest(&layer), layer.clone())];
                let (manifest, paths) = (manifest.clone(), paths.clone());
                std::thread::spawn(move || {
                    let Some((method, path)) = request_line(&stream) else { return };
                    paths.lock().expect("no panic").push(path.clone());
                    let body = match blobs.iter().find(|(digest, _)| path.ends_with(digest.as_str())) {
                        Some((_, blob)) => Some((blob.clone(), "application/octet-stream")),
                        None if path.contains("/manifests/") => Some((manifest, kind)),
                        None if path.trim_end_matches('/') == "/v2" => {
                            Some((b"{}".to_vec(), "application/json"))
                        }
                        None => None,
                    };
                    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                    let (body, kind) = body.unwrap_or_default();
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\
                         Docker-Content-Digest: {}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n",
                        body.len(),
                        digest(&body)
                    );
                    let mut answer = head.into_bytes();
                    if method != "HEAD" {
                        answer.extend(body);
                    }
                    let _ = (&stream).write_all(&answer);
                });
            }
        });
        Registry { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// Method and path of a request whose head ends here.
fn request_line(mut stream: &std::net::TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    let mut words = text.split(' ');
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}
