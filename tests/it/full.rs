//! A data folder on a small file system of its own, and that one full.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use quickcmd::store::{Store, verify_all};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Agent, PATIENCE, Setup, payload, sign, until};

/// The file system's size.
const SIZE: u64 = 96 << 20;

/// A job sees how full it is: its one bind is from there.
const UNTIL_FULL: &str =
    "until [ $(df -Pk /.quickcmd | awk 'NR == 2 {print $4}') -lt 1024 ]; do sleep 0.1; done";

/// An agent whose data folder is a mount.
struct Small {
    agent: Agent,
    data: PathBuf,
}

impl Small {
    fn prepare(config: &str) -> Small {
        assert!(nix::unistd::geteuid().is_root(), "this test mounts a small file system: run it as root");
        let agent = Agent::prepare(&Setup { config: config.to_owned(), signed_reads: false });
        let data = agent.dir.path().join("data");
        fs::create_dir(&data).expect("a folder");
        let image = agent.dir.path().join("disk");
        File::create(&image).and_then(|file| file.set_len(SIZE)).expect("a file");
        // A real one where there are loop devices; one in memory where a container has none.
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            .and_then(|()| run(Command::new("mount").args(["-o", "loop"]).args([&image, &data])))
            .or_else(|why| {
                println!("a file system in memory, for {why}");
                let size = format!("size={SIZE}");
                run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "small"]).arg(&data))
            });
        made.expect("a small file system can be mounted");
        Small { agent, data }
    }

    /// Takes all the space that there is.
    fn fill(&self) {
        let mut filler =
            File::options().create(true).append(true).open(self.data.join("filler")).expect("a file");
        // Some comes free when the kernel has written what it had put off.
        for _ in 0..3 {
            for length in [1 << 20, 4096] {
                let zeros = vec![0; length];
                loop {
                    match filler.write(&zeros) {
                        Ok(written) if written > 0 => {}
                        Ok(_) => break,
                        Err(error) if error.kind() == ErrorKind::StorageFull => break,
                        Err(error) => panic!("the filler: {error}"),
                    }
                }
            }
            let _ = filler.sync_all();
        }
    }

    fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.data).expect("a file system");
        stat.blocks_available() * stat.fragment_size()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.agent.kill();
        let _ = run(Command::new("umount").arg("-l").arg(&self.data));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// What is kept of a job's output is what its result tells the hash of.
async fn output_agrees(agent: &Agent, result: &Value, path: &Path) {
    let id = result["job_id"].as_str().expect("an id");
    for stream in ["stdout", "stderr"] {
        let url = agent.url(&format!("/api/v1/jobs/{id}/output?stream={stream}"));
        let bytes = agent.http.get(url).send().await.expect("an answer").bytes().await.expect("a body");
        let hash = hex::encode(Sha256::digest(&bytes));
        assert_eq!(result[format!("{stream}_sha256")], hash, "{stream} on {}: {result}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_running_jobs_end_and_nothing_accepted_is_lost() {
    let mut small = Small::prepare("max_concurrent_jobs: 2\nstorage: {low_watermark: 16 MiB}\n");
    small.agent.launch();
    small.agent.until_ready().await;
    let agent = &small.agent;
    assert_eq!(agent.run("echo before").await["stdout"], "before\n");

    let quiet = agent.submit(&format!("echo begin; {UNTIL_FULL}; echo end")).await;
    let loud = agent.submit(&format!("echo begin; {UNTIL_FULL}; seq 1 1000000; echo word >&2; exit 3")).await;
    agent.until_status(&quiet, "running").await;
    agent.until_status(&loud, "running").await;
    let waits = agent.submit("echo waited").await;

    small.fill();
    // Before the agent has looked: it may still be accepted, then it counts.
    let early = sign(&payload("echo early", json!({})).to_string());
    let (first, answer) = agent.post(early.clone()).await;
    assert!([202, 503].contains(&first), "{answer}");
    until("/ready is red", PATIENCE, async || agent.get("/ready").await.0 == 503).await;
    let (_, ready) = agent.get("/ready").await;
    assert!(ready["problems"].to_string().contains("low watermark"), "{ready}");
    let late = sign(&payload("echo late", json!({})).to_string());
    for _ in 0..50 {
        let (status, answer) = agent.post(late.clone()).await;
        assert_eq!((status, &answer["code"]), (503, &json!("STORAGE_LOW")), "{answer}");
    }

    let end = agent.ended(&quiet).await;
    assert_eq!(end["result"]["stdout"], "begin\nend\n", "{end}");
    output_agrees(agent, &end["result"], &small.data).await;
    let end = agent.ended(&loud).await;
    assert_eq!((&end["reason"], &end["result"]["exit_code"]), (&json!("exited"), &json!(3)), "{end}");
    assert!(end["result"]["stdout_dropped"].as_u64().is_some_and(|bytes| bytes > 0), "it is said: {end}");
    output_agrees(agent, &end["result"], &small.data).await;
    // These ends are recorded, and the disk has been full all the time.
    assert!(small.free() < 2 << 20, "{} bytes are free", small.free());
    assert_eq!(agent.get(&format!("/api/v1/jobs/{waits}")).await.1["status"], "pending");

    fs::remove_file(small.data.join("filler")).expect("it is there");
    until("/ready is green", PATIENCE, async || agent.get("/ready").await.0 == 200).await;
    let end = agent.ended(&waits).await;
    assert_eq!(end["result"]["stdout"], "waited\n", "{end}");
    for (body, said) in [(early, "early\n"), (late, "late\n")] {
        let (status, answer) = agent.post(body).await;
        assert_eq!(status, 202, "the same bytes are taken when there is space: {answer}");
        let end = agent.ended(answer["job_id"].as_str().expect("an id")).await;
        assert_eq!(end["result"]["stdout"], said, "{end}");
    }
    verify_all(&small.data.join("agent-audit.db")).expect("the record holds");
    agent.no_container_left().await;
}

/// A reader of the record keeps SQLite from beginning the log anew; it has grown beyond what was set aside at first.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_there_is_a_reserve_behind_a_log_that_has_grown() {
    let small = Small::prepare("");
    let path = small.data.join("agent-audit.db");
    let store = Store::open(&path).expect("a store");
    store.write(|tx| Ok(tx.execute_batch("CREATE TABLE ballast (bytes)")?)).await.expect("a table");
    let mut reader = rusqlite::Connection::open(&path).expect("a reader");
    let reading = reader.transaction().expect("a transaction");
    let _: i64 = reading.query_row("SELECT count(*) FROM ballast", [], |row| row.get(0)).expect("a number");
    let add = async |bytes: i64| {
        store
            .write(move |tx| {
                tx.execute("INSERT INTO ballast VALUES (zeroblob(?1))", [bytes])?;
                Ok(())
            })
            .await
    };
    add(20 << 20).await.expect("there is space");
    // The reserve is claimed after the answer, and before the next change.
    add(1).await.expect("there is space");
    let log = small.data.join("agent-audit.db-wal");
    let long = log.metadata().expect("a log").len();
    assert!(long > 20 << 20, "{long} bytes");
    small.fill();
    for n in 0..100 {
        let added = add(64 << 10).await;
        assert!(added.is_ok(), "change {n} on the full disk: {added:?}; {:?}", log.metadata());
    }
    assert!(small.free() < 2 << 20, "{} bytes are free", small.free());
    drop(reading);
    fs::remove_file(small.data.join("filler")).expect("it is there");
    store.close().await.expect("it can be closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_longest_list_of_artifacts_has_its_place() {
    let mut small = Small::prepare("artifacts: {max_files: 512}\nstorage: {low_watermark: 16 MiB}\n");
    small.agent.launch();
    small.agent.until_ready().await;
    let agent = &small.agent;
    // Files without a byte, which need no place themselves, of long names, which need it in the report.
    let (folder, name) = ("f".repeat(240), "n".repeat(235));
    let script = format!(
        "mkdir out out/{folder} && cd out/{folder} && for n in $(seq 100 611); do : >{name}$n; done; echo ready; {UNTIL_FULL}"
    );
    let id = agent.submit_with(&script, json!({"sandbox": {"artifacts": ["out"]}})).await;
    let output = format!("/api/v1/jobs/{id}/output");
    until("the files are there", PATIENCE, async || {
        let answer = agent.http.get(agent.url(&output)).send().await.expect("an answer");
        answer.text().await.expect("text") == "ready\n"
    })
    .await;
    small.fill();
    let end = agent.ended(&id).await;
    assert_eq!((&end["reason"], &end["result"]["exit_code"]), (&json!("exited"), &json!(0)), "{end}");
    let list = end["result"]["artifacts"].as_array().expect("a list");
    assert_eq!((list.len(), &list[511]["size"]), (512, &json!(0)), "{}", list[511]);
    agent.no_container_left().await;
}
