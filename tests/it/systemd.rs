//! What the agent tells systemd (`Type=notify`, `WatchdogSec=`), with the test in systemd's place.

use std::{
    os::unix::net::UnixDatagram,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{Agent, PATIENCE, Setup, signal};

/// Reads what comes to a socket, all the time: an agent that is not listened to would wait.
struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Manager {
    fn listen(path: &std::path::Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
        let (heard, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (list, end) = (Arc::clone(&heard), Arc::clone(&over));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    list.lock().expect("no panic holds it").push(text);
                }
            }
        });
        Manager { heard, over, reader: Some(reader) }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic holds it").clone()
    }

    /// Waits until `word` has come so often.
    async fn until(&self, word: &str, times: usize) {
        let end = Instant::now() + PATIENCE;
        while self.heard().iter().filter(|text| text.contains(word)).count() < times {
            assert!(Instant::now() < end, "no {word}: {:?}", self.heard());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_reload_watchdog_and_stop_are_told_also_during_a_drain() {
    let mut agent = Agent::prepare(&Setup::default());
    let path = agent.dir.path().join("notify");
    let manager = Manager::listen(&path);
    let path = path.to_str().expect("text").to_owned();
    agent.launch_with(&[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "900000")]);
    agent.until_ready().await;
    manager.until("READY=1", 1).await;
    manager.until("WATCHDOG=1", 2).await;

    signal(agent.pid(), nix::sys::signal::Signal::SIGHUP);
    manager.until("RELOADING=1", 1).await;
    manager.until("READY=1", 2).await;

    let id = agent.submit("sleep 5; echo done").await;
    agent.until_status(&id, "running").await;
    assert_eq!(agent.terminate(), Some(0));
    let heard = manager.heard();
    let stopping = heard.iter().position(|text| text.contains("STOPPING=1")).expect("it says that it stops");
    assert!(
        heard[stopping..].iter().any(|text| text.contains("WATCHDOG=1")),
        "a process that drains is alive: {heard:?}"
    );
}
