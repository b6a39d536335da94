//! What the unit tests of this room share.

use std::time::Duration;

use super::{Image, Shape};
use crate::{
    config::{Limits, PoolConfig, PullPolicy, SandboxConfig},
    wire::payload::Network,
};

pub(super) fn config() -> SandboxConfig {
    SandboxConfig {
        agent_id: "test".to_owned(),
        docker_host: "unix:///var/run/docker.sock".to_owned(),
        pull_policy: PullPolicy::Never,
        pull_stall: Duration::from_secs(5),
        uid: 65_534,
        gid: 65_534,
        workdir: "/work".to_owned(),
        runtimes: Vec::new(),
        nofile: 1024,
        fsize: 1 << 30,
        shm: 16 << 20,
        pool: PoolConfig { size: 0, max: 0, max_memory: 0, max_age: Duration::from_secs(600) },
    }
}

pub(super) fn shape(id: &str) -> Shape {
    Shape {
        image: Image { reference: "i".to_owned(), id: id.to_owned(), digest: id.to_owned(), env: Vec::new() },
        limits: Limits { cpu: 0.5, memory: 256 << 20, pids: 64, timeout_seconds: 60, tmpfs: 64 << 20 },
        network: Network::None,
        class: "c".to_owned(),
        reuse: 1,
    }
}

mod played {
    use std::{fs::File, sync::Arc};

    use super::{super::*, shape};
    use crate::sandbox::fake::{Failure, Fake};
    use quickcmd_init::{proto::Report, spool};

    fn label(row: i64) -> Label {
        Label { row, job_id: "j".to_owned(), payload_sha256: String::new(), attempt: 1 }
    }

    fn job(script: &str) -> Job {
        Job {
            argv: vec![script.to_owned()],
            env: vec![("A".to_owned(), "1".to_owned())],
            workdir: "/".to_owned(),
            stdin_len: 0,
            timeout_ms: 60_000,
            grace_ms: 100,
            output_limit: 10,
            end_at_output_limit: false,
            secrets: Vec::new(),
            redact: false,
            first_seq: 1,
            fsize: None,
            files: Vec::new(),
            artifacts: None,
            again: false,
        }
    }

    fn report(file: &mut File) -> Option<Report> {
        use std::io::{Read, Seek};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let mut rest = &bytes[..];
        while let Some((head, after)) = rest.split_first_chunk::<{ spool::HEADER }>() {
            let header = spool::Header::decode(head).unwrap();
            let (body, after) = after.split_at(header.len as usize);
            if header.kind == spool::Kind::Report {
                return Some(serde_json::from_slice(body).unwrap());
            }
            rest = after;
        }
        None
    }

    #[tokio::test]
    async fn a_script_is_played_and_survives_a_crash() {
        let fake = Arc::new(Fake::new());
        let image = fake.resolve("i").await.unwrap();
        let mut sandbox = fake.launch(Shape { image, ..shape("") }, label(1)).await.unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let id = sandbox.id().to_owned();
        let spool = file.try_clone().unwrap().into();
        sandbox.hand_over(job("echo 123456; env A; echo much; sleep 600"), Vec::new(), spool).await.unwrap();
        assert_eq!(fake.counts().running, 1);
        fake.crash();
        drop(sandbox);

        let next = fake.next_life();
        assert_eq!(next.list().await.unwrap().len(), 1);
        assert!(!next.is_mine(&id));
        let adopted = next.adopt(&id);
        adopted.stop(Stop::Cancelled).await.unwrap();
        assert!(!adopted.ended().await.running);
        let report = report(&mut file).unwrap();
        assert_eq!(
            (report.stopped, report.stdout.bytes, report.stdout.dropped),
            (Some(Stop::Cancelled), 10, 4)
        );
        drop(adopted);
        assert!(next.list().await.unwrap().is_empty());
        assert_eq!(next.counts().running, 0);
    }

    #[tokio::test]
    async fn failures_come_once_and_a_red_engine_is_unreachable() {
        let fake = Fake::new();
        fake.fail(Failure::ImageMissing);
        assert!(matches!(fake.resolve("i").await, Err(SandboxError::ImageUnavailable { .. })));
        fake.resolve("i").await.unwrap();
        fake.set_problem(Some("off"));
        assert!(!fake.health().ready);
        assert!(matches!(fake.launch(shape("x"), label(1)).await, Err(SandboxError::Unreachable(_))));
        fake.set_problem(None);
        let mut sandbox = fake.launch(shape("x"), label(1)).await.unwrap();
        fake.fail(Failure::ChannelLost);
        let mut file = tempfile::tempfile().unwrap();
        let spool = file.try_clone().unwrap().into();
        let lost = sandbox.hand_over(job("vanish"), Vec::new(), spool).await;
        assert!(matches!(lost, Err(SandboxError::MayHaveStarted(_))));
        assert_eq!(sandbox.ended().await.exit_code, Some(137));
        assert_eq!(report(&mut file), None);
    }
}
