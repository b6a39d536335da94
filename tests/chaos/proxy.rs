//! Stands between the agent and the Docker socket, and makes that a bad one.

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use crate::rng::Rng;

const DOCKER: &str = "/var/run/docker.sock";

/// How bad it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Every connection is cut, and new ones at once.
    Refuse,
    /// Connections are taken, and no byte goes through.
    Hang,
    /// Each piece takes so many milliseconds.
    Delay(u64),
    /// One in so many answers is cut off: what was asked for may have been done.
    Cut(u64),
}

pub struct Proxy {
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens at that path.
    pub fn start(path: &Path, mut rng: Rng) -> Proxy {
        let listener = UnixListener::bind(path).expect("a socket");
        let mode = watch::Sender::new(Mode::Pass);
        let modes = mode.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                if *modes.borrow() == Mode::Refuse {
                    continue;
                }
                tokio::spawn(connection(client, modes.clone(), rng.fork()));
            }
        });
        Proxy { mode, task }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(client: UnixStream, modes: watch::Receiver<Mode>, mut rng: Rng) {
    let Ok(docker) = UnixStream::connect(DOCKER).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_docker, to_docker) = docker.into_split();
    let mut cut = modes.clone();
    tokio::select! {
        // The end of either direction ends both: what Docker says last is through by then, it closes last.
        () = pump(from_client, to_docker, modes.clone(), None) => {}
        () = pump(from_docker, to_client, modes, Some(rng.fork())) => {}
        _ = cut.wait_for(|mode| *mode == Mode::Refuse) => {}
    }
}

/// Passes bytes on as the mode has it. `chance`: these are answers.
async fn pump(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    mut chance: Option<Rng>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if modes.wait_for(|mode| *mode != Mode::Hang).await.is_err() {
            return;
        }
        let mode = *modes.borrow();
        if let Mode::Delay(ms) = mode {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if let (Mode::Cut(one_in), Some(rng)) = (mode, &mut chance)
            && rng.range(0, one_in) == 0
        {
            // A part of it arrives.
            let _ = to.write_all(&buffer[..read / 2]).await;
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
