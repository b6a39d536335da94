//! Sandboxes that run more than one job of a controller: what one leaves must be gone for the next.

use std::{
    fs::File,
    io::{PipeReader, Read, Seek},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use quickcmd::{
    config::PoolConfig,
    sandbox::{Engine, Job, Observer, Shape, Stop},
};
use quickcmd_init::{
    proto::{Ending, Report},
    spool::{HEADER, Header, Kind},
};
use tokio::sync::oneshot;

use crate::bench::{Bench, PATIENCE, config, read, until};

#[derive(Default)]
struct Counts {
    waiting: AtomicUsize,
    reused: AtomicUsize,
}

impl Observer for Counts {
    fn pool_depth(&self, waiting: usize) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }
    fn reused(&self) {
        self.reused.fetch_add(1, Ordering::Relaxed);
    }
}

/// An engine whose sandboxes run so many jobs each.
struct Again {
    bench: Bench,
    counts: Arc<Counts>,
}

/// How one job ended.
struct Ran {
    container: String,
    use_of: Option<u32>,
    stdout: String,
    report: Report,
}

impl Again {
    async fn new(reuse: u32) -> Again {
        let mut config = config();
        config.pool = PoolConfig { size: 0, max: 4, max_memory: 1 << 30, max_age: Duration::from_secs(600) };
        let counts = Arc::new(Counts::default());
        let mut bench = Bench::watched(config, counts.clone()).await;
        bench.shape.reuse = reuse;
        Again { bench, counts }
    }

    async fn run(&self, command: &str) -> Ran {
        self.run_job(&self.bench.shape, self.bench.job(command), Vec::new()).await
    }

    /// Runs it to its report and gives the sandbox back.
    async fn run_job(&self, shape: &Shape, mut job: Job, stdin: Vec<u8>) -> Ran {
        job.stdin_len = stdin.len() as u64;
        let mut sandbox = self.bench.engine.launch(shape.clone(), self.bench.label()).await.unwrap();
        let (container, use_of) = (sandbox.id().to_owned(), sandbox.use_of());
        let (spool, file) = self.bench.spool();
        sandbox.hand_over(job, stdin, spool).await.unwrap();
        let (stdout, report) = reported(file).await;
        sandbox.release();
        Ran { container, use_of, stdout, report }
    }

    /// Waits until so many wait for another job.
    async fn until_waiting(&self, wanted: usize) {
        until("sandboxes wait", async || self.counts.waiting.load(Ordering::Relaxed) == wanted).await;
    }

    async fn until_gone(&self, container: &str) {
        until("the container is gone", async || {
            let there = self.bench.engine.list().await.unwrap();
            there.iter().all(|found| found.container_id != container)
        })
        .await;
    }
}

/// Waits for the report; twice the usual patience, for the job's own work comes first.
async fn reported(mut spool: File) -> (String, Report) {
    let end = Instant::now() + 2 * PATIENCE;
    loop {
        // All of it each time: what was read before counts, too.
        spool.rewind().unwrap();
        if let (stdout, _, Some(report)) = read(spool.try_clone().unwrap()) {
            return (stdout, report);
        }
        assert!(Instant::now() < end, "no report");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A program that leaves objects of every kind in the IPC namespace, linked statically: the image has no library.
fn ipc_program() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("ipc.c"), dir.path().join("ipc"));
    let text = r#"
        #include <fcntl.h>
        #include <mqueue.h>
        #include <stdio.h>
        #include <sys/ipc.h>
        #include <sys/msg.h>
        #include <sys/sem.h>
        #include <sys/shm.h>
        #include <string.h>
        int main(void) {
            int shm = shmget(42, 4096, IPC_CREAT | 0600);
            int sem = semget(42, 1, IPC_CREAT | 0600);
            int msg = msgget(42, IPC_CREAT | 0600);
            mqd_t queue = mq_open("/left", O_CREAT | O_RDWR, 0600, NULL);
            if (shm < 0 || sem < 0 || msg < 0 || queue < 0) { perror("ipc"); return 1; }
            strcpy(shmat(shm, NULL, 0), "left");
            return 0;
        }"#;
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc").arg("-static").arg("-o").arg(&program).arg(&source).arg("-lrt").status();
    assert!(built.expect("a C compiler").success());
    std::fs::read(program).unwrap()
}

/// Everything that a job can find of an earlier one; prints nothing where there is nothing.
const LOOK: &str = "
    find /tmp /work /dev/shm /dev/mqueue -mindepth 1 2>&1
    for list in shm sem msg; do sed 1d /proc/sysvipc/$list; done
    cat /proc/[0-9]*/comm | grep -x sleep
    [ \"$(stat -c %a /tmp) $(stat -c %a /work)\" = '1777 700' ] || stat -c '%n %a' /tmp /work
    now=\"$(umask) $PWD ${SECRET-none} $(ulimit -n) $(ulimit -f)\"
    [ \"$now\" = \"$WANTED\" ] || echo \"$now, not $WANTED\"
    true";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_job_is_left_for_the_next() {
    let again = Again::new(10).await;
    let fresh = again.run("echo $(umask) $PWD ${SECRET-none} $(ulimit -n) $(ulimit -f)").await;
    assert_eq!(fresh.use_of, Some(1));
    again.until_waiting(1).await;

    let mut look = again.bench.job(LOOK);
    look.env.push(("WANTED".to_owned(), fresh.stdout.trim().to_owned()));
    let mut files = again.bench.job(
        "echo left > /tmp/left; echo left > /work/.left; echo left > /dev/shm/left; touch /dev/mqueue/left
         mkdir -p /tmp/a/b && touch /tmp/a/b/left && chmod 0 /tmp/a/b /tmp/a; ln -s /etc /work/link
         mkfifo /tmp/pipe; chmod 777 /work; chmod 0 /tmp; umask 077; ulimit -n 20; ulimit -f 1; cd /
         (setsid sleep 1000 left </dev/null >/dev/null 2>&1 &)",
    );
    files.env.push(("SECRET".to_owned(), "left".to_owned()));
    let processes = again.bench.job(
        "for n in 1 2 3 4 5 6 7 8; do (trap '' TERM HUP INT; exec setsid sleep 1000) & done
         (kill -STOP $(sh -c 'echo $PPID')) & sleep 0.2",
    );
    let ipc =
        again.bench.job("cat > /tmp/ipc && chmod +x /tmp/ipc && /tmp/ipc && tail -n +2 /proc/sysvipc/shm");
    for (job, stdin, what) in
        [(files, Vec::new(), "files"), (processes, Vec::new(), "processes"), (ipc, ipc_program(), "ipc")]
    {
        let ran = again.run_job(&again.bench.shape, job, stdin).await;
        assert_eq!(ran.container, fresh.container, "{what}");
        assert!(matches!(ran.report.ending, Ending::Exited { .. }), "{what}: {:?}", ran.report);
        if what == "ipc" {
            assert_eq!(ran.report.ending, Ending::Exited { code: 0 });
            assert_ne!(ran.stdout, "", "it was there");
        }
        again.until_waiting(1).await;
        let looked = again.run_job(&again.bench.shape, look.clone(), Vec::new()).await;
        assert_eq!(
            (looked.container.as_str(), looked.stdout.as_str()),
            (fresh.container.as_str(), ""),
            "{what}"
        );
        again.until_waiting(1).await;
    }
    assert_eq!(again.counts.reused.load(Ordering::Relaxed), 6);
    again.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_runs_so_many_jobs_of_one_class_and_no_more() {
    let again = Again::new(3).await;
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(again.run("echo $$").await);
        if first.len() < 3 {
            again.until_waiting(1).await;
        }
    }
    assert_eq!(first.iter().map(|ran| ran.use_of).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    assert!(first.iter().all(|ran| ran.container == first[0].container));
    again.until_gone(&first[0].container).await;
    let second = again.run("true").await;
    assert_ne!(second.container, first[0].container);
    assert_eq!(second.use_of, Some(1));
    again.until_waiting(1).await;

    // Another controller has another class; and a lower number holds at once.
    let other = Shape { class: "other".to_owned(), ..again.bench.shape.clone() };
    let third = again.run_job(&other, again.bench.job("true"), Vec::new()).await;
    assert_ne!(third.container, second.container);
    again.until_waiting(2).await;
    let once = Shape { reuse: 1, ..again.bench.shape.clone() };
    let fourth = again.run_job(&once, again.bench.job("true"), Vec::new()).await;
    assert_ne!(fourth.container, second.container);
    assert_eq!(fourth.use_of, None);
    again.until_gone(&second.container).await;
    again.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_end_by_itself_is_not_used_again() {
    let again = Again::new(10).await;
    // Out of time.
    let mut late = again.bench.job("sleep 100");
    late.timeout_ms = 100;
    let late = again.run_job(&again.bench.shape, late, Vec::new()).await;
    assert_eq!(late.report.stopped, Some(Stop::Timeout));
    // A child that was killed for memory, of a parent that ends well.
    let oom = again.run("sh -c 'x=x; while :; do x=$x$x; done'; true").await;
    assert_ne!(oom.container, late.container);
    assert_eq!(oom.report.ending, Ending::Exited { code: 0 });
    assert!(oom.report.oom_kills >= 1, "{:?}", oom.report);
    // More files than can be removed at once, or deeper than is looked.
    let deep = again.run("i=0; while [ $i -lt 120 ]; do mkdir d && cd d; i=$((i + 1)); done; echo $i").await;
    assert_ne!(deep.container, oom.container);
    assert_eq!(deep.stdout, "120\n");
    for container in [&late.container, &oom.container, &deep.container] {
        again.until_gone(container).await;
    }
    let last = again.run("true").await;
    assert_eq!(last.use_of, Some(1));
    // One that dies while it waits is not given.
    until("one waits", async || again.counts.waiting.load(Ordering::Relaxed) >= 1).await;
    for found in again.bench.engine.list().await.unwrap() {
        // One that is on its way out already can't be killed.
        let _ = Command::new("docker").args(["kill", &found.container_id]).output();
    }
    let next = again.run("echo fine").await;
    assert_eq!((next.stdout.as_str(), next.use_of), ("fine\n", Some(1)));
    again.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_used_is_its_own() {
    let again = Again::new(10).await;
    let much = again.run("head -c 4000000 /dev/zero | tail -c 4000000 > /tmp/x; i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done").await;
    again.until_waiting(1).await;
    let little = again.run_job(&again.bench.shape, again.bench.job("true"), Vec::new()).await;
    assert_eq!(little.container, much.container);
    assert!(little.report.max_rss_bytes < much.report.max_rss_bytes, "{:?} {:?}", little.report, much.report);
    assert!(little.report.cpu_ms <= much.report.cpu_ms, "{:?} {:?}", little.report, much.report);
    assert_eq!(little.report.oom_kills, 0);
    again.bench.close().await;
}

/// Reads a spool that is a pipe. Says when the report has come, and when nobody can write to it any more; not on a thread
/// of the runtime's, which would wait for it if the test fails.
fn drain(mut spool: PipeReader) -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
    let ((report, has_reported), (end, has_ended)) = (oneshot::channel(), oneshot::channel());
    std::thread::spawn(move || {
        let mut header = [0; HEADER];
        loop {
            spool.read_exact(&mut header).unwrap();
            let header = Header::decode(&header).expect("a header");
            spool.read_exact(&mut vec![0; header.len as usize]).unwrap();
            if header.kind == Kind::Report {
                break;
            }
        }
        let _ = report.send(());
        assert_eq!(spool.read(&mut header).unwrap(), 0, "the report is the last");
        let _ = end.send(());
    });
    (has_reported, has_ended)
}

/// The agent has synced it and recorded the job's end before it gives the sandbox another.
#[tokio::test(flavor = "multi_thread")]
async fn the_spool_of_a_job_is_let_go_with_the_next() {
    let again = Again::new(10).await;
    let mut sandbox =
        again.bench.engine.launch(again.bench.shape.clone(), again.bench.label()).await.unwrap();
    let container = sandbox.id().to_owned();
    let (read, write) = std::io::pipe().unwrap();
    let (has_reported, has_ended) = drain(read);
    sandbox.hand_over(again.bench.job("true"), Vec::new(), write.into()).await.unwrap();
    tokio::time::timeout(PATIENCE, has_reported).await.expect("no report").unwrap();
    sandbox.release();
    again.until_waiting(1).await;

    let mut next = again.bench.engine.launch(again.bench.shape.clone(), again.bench.label()).await.unwrap();
    assert_eq!((next.id(), next.use_of()), (container.as_str(), Some(2)));
    let (spool, file) = again.bench.spool();
    next.hand_over(again.bench.job("until [ -e /tmp/go ]; do sleep 0.1; done"), Vec::new(), spool)
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, has_ended).await.expect("held while the next job runs").unwrap();
    let go = Command::new("docker").args(["exec", &container, "touch", "/tmp/go"]).output().unwrap();
    assert!(go.status.success(), "{go:?}");
    let (_, report) = reported(file).await;
    assert_eq!(report.ending, Ending::Exited { code: 0 });
    next.discard();
    again.bench.close().await;
}
