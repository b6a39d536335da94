//! What befalls the agent in a storm.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use quickcmd::base::failpoints::ALL;

use crate::{
    harness::{Agent, signal},
    model::{Event, History},
    proxy::{Mode, Proxy},
    rng::Rng,
};

pub struct Storm {
    pub agent: Agent,
    pub proxy: Proxy,
    pub rng: Rng,
    pub history: History,
    /// A defect that the agent is to have.
    pub planted: Option<String>,
    /// Milliseconds between two faults, from and to.
    pub between: (u64, u64),
    pub counts: BTreeMap<&'static str, u32>,
}

impl Storm {
    /// One fault after the other, sometimes two at once, until then. At the end all is well again.
    pub async fn rage(&mut self, until: Instant) {
        self.launch(false);
        self.agent.until_ready().await;
        while Instant::now() < until {
            self.pause(self.between.0, self.between.1).await;
            match self.rng.range(0, 12) {
                0..=2 => self.kill().await,
                3 => self.terminate().await,
                4 => self.reload().await,
                5..=6 => self.freeze().await,
                7..=10 => self.docker().await,
                _ => {
                    let mode = self.bad_docker();
                    self.set(mode);
                    self.pause(100, 1000).await;
                    self.kill().await;
                    self.set(Mode::Pass);
                }
            }
        }
        self.set(Mode::Pass);
        self.alive();
    }

    /// Waits, and starts the agent again if a failpoint ends it meanwhile.
    async fn pause(&mut self, from: u64, to: u64) {
        let end = Instant::now() + self.rng.millis(from, to);
        while Instant::now() < end {
            self.alive();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sees that it runs.
    pub fn alive(&mut self) {
        if let Some(status) = self.agent.exited() {
            if status.signal() == Some(9) {
                self.count("failpoint", String::new());
            } else {
                let why = format!("the agent ended by itself with {status}: {}", last_words(&self.agent));
                self.history.add(Event::Wrong { why });
            }
            let again = self.rng.percent(30);
            self.launch(again);
        }
    }

    fn launch(&mut self, with_failpoint: bool) {
        self.agent.env.clear();
        if let Some(defect) = &self.planted {
            self.agent.env.push(("QUICKCMD_PLANTED", defect.clone()));
        }
        if with_failpoint {
            let point = *self.rng.pick(ALL);
            let at = self.rng.range(1, 6);
            self.agent.env.push(("QUICKCMD_FAILPOINTS", format!("{point}=kill@{at}")));
        }
        self.agent.launch();
    }

    fn count(&mut self, name: &'static str, more: String) {
        *self.counts.entry(name).or_default() += 1;
        self.history.add(Event::Fault { name: format!("{name} {more}").trim_end().to_owned() });
    }

    async fn kill(&mut self) {
        self.alive();
        self.count("kill", String::new());
        self.agent.kill();
        let away = self.rng.millis(0, 700);
        tokio::time::sleep(away).await;
        let with_failpoint = self.rng.percent(60);
        self.launch(with_failpoint);
    }

    async fn terminate(&mut self) {
        self.alive();
        self.count("terminate", String::new());
        // The signal may come before the agent listens to it: then it ends as any program does.
        let code = tokio::task::block_in_place(|| self.agent.terminate());
        if !matches!(code, Some(0) | None) {
            let why = format!("SIGTERM ended with {code:?}: {}", last_words(&self.agent));
            self.history.add(Event::Wrong { why });
        }
        self.launch(false);
    }

    async fn reload(&mut self) {
        let times = self.rng.range(1, 20);
        self.count("reload", times.to_string());
        for _ in 0..times {
            self.alive();
            // Before it listens, SIGHUP would end it.
            if self.agent.log_of_this_life().contains("the agent serves") {
                signal(self.agent.pid(), Signal::SIGHUP);
            }
            self.pause(1, 40).await;
        }
    }

    async fn freeze(&mut self) {
        self.alive();
        let time = self.rng.millis(200, 2000);
        self.count("freeze", format!("{} ms", time.as_millis()));
        // Not waited for yet, the pid is nobody else's.
        signal(self.agent.pid(), Signal::SIGSTOP);
        tokio::time::sleep(time).await;
        signal(self.agent.pid(), Signal::SIGCONT);
    }

    async fn docker(&mut self) {
        let mode = self.bad_docker();
        self.set(mode);
        self.pause(200, 2500).await;
        self.set(Mode::Pass);
    }

    fn bad_docker(&mut self) -> Mode {
        match self.rng.range(0, 4) {
            0 => Mode::Refuse,
            1 => Mode::Hang,
            2 => Mode::Delay(self.rng.range(20, 500)),
            _ => Mode::Cut(self.rng.range(2, 6)),
        }
    }

    fn set(&mut self, mode: Mode) {
        if mode != self.proxy.mode() && mode != Mode::Pass {
            self.count("docker", format!("{mode:?}"));
        }
        self.proxy.set(mode);
    }
}

fn last_words(agent: &Agent) -> String {
    let log = agent.log();
    let lines: Vec<&str> = log.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
