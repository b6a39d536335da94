//! The loop that runs one job to its report.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::Signal;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::unistd::Pid;
use quickcmd_init::proto::{Ending, Job, REPORT_PATIENCE, Report, Stop};
use quickcmd_init::redact::Redactor;
use quickcmd_init::spool::{Kind, MAX_BODY};

use super::channel::{Channel, Order};
use super::child;
use super::collect::Collector;
use super::processes::{self, Left, Usage};
use super::signals::Signals;
use super::spooler::{Spooler, now_ns};
use super::stream::{Looked, Stream, no_totals};

/// How long the streams may stay open after the job's first process has ended.
const LEFTOVER: Duration = Duration::from_millis(100);
/// Between two rounds of SIGKILL.
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// How long processes that SIGKILL does not end (stuck in the kernel) keep the report waiting.
const UNKILLABLE: Duration = Duration::from_secs(2);
/// How long a full disk may keep the job from its start.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// How far the end of the job has come.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Running {
        deadline: Option<Instant>,
    },
    /// SIGTERM has been sent.
    Asked {
        kill_at: Option<Instant>,
    },
    /// SIGKILL has been sent, and is sent again.
    Killing {
        since: Instant,
        again: Instant,
    },
}

struct Run {
    main: Pid,
    phase: Phase,
    stopped: Option<Stop>,
    /// The end was asked for when the job had had its own: what is still to do must be quick.
    asked_late: bool,
    grace: Duration,
    ending: Option<Ending>,
    /// When the first process ended.
    ended: Option<Instant>,
    left: Left,
    usage: Usage,
    stdout: Stream,
    stderr: Stream,
}

/// Runs the job and writes its report. Whether the sandbox is as good as before but for what is in its files: the job
/// has ended by itself, no process is left, and memory was enough. And the spool, which is still to be synced: a slow
/// disk must not delay the news.
///
/// # Errors
/// The report could not be written. The job has ended.
pub fn run(order: Order, channel: &mut Channel, signals: &mut Signals) -> io::Result<(bool, Spooler)> {
    let Order { job, spool, stdin, placed } = order;
    let mut spool = Spooler::new(spool, job.first_seq, job.artifacts.is_some())?;
    let redactor = Redactor::new(&job.secrets, job.redact);
    let (oom_before, cpu_before) = (processes::oom_kills(), processes::cpu_used());
    let mut usage = Usage::default();
    let mut nobody_left = true;
    let mut asked = false;
    let start = Instant::now();
    let start_ns = now_ns();
    let started = spool.insist(Kind::Started, 0, &[], start + START_PATIENCE);
    // A word for the reader; the job does not depend on it.
    spool.say("Starting execution...", start);
    let collector = Collector::new(&job);
    let child = match started {
        Ok(()) => placed.map_err(child::not_placed).and_then(|()| child::start(&job, stdin)),
        Err(error) => {
            let error = format!("the job's output can't be written, so it was not started: {error}");
            Err(child::trouble(error))
        }
    };
    let mut report = Report {
        ending: child::trouble(String::new()),
        stopped: None,
        stdout: no_totals(),
        stderr: no_totals(),
        cpu_ms: 0,
        max_rss_bytes: 0,
        oom_kills: 0,
        start_ns,
        end_ns: 0,
        run_ms: 0,
        artifacts: Vec::new(),
    };
    let mut missing = Vec::new();
    let ended = match child {
        Ok(child) => {
            let mut run = Run {
                main: child.pid,
                phase: Phase::Running { deadline: start.checked_add(Duration::from_millis(job.timeout_ms)) },
                stopped: None,
                asked_late: false,
                grace: Duration::from_millis(job.grace_ms),
                ending: None,
                ended: None,
                left: Left::Some,
                usage: Usage::default(),
                stdout: Stream::new(child.stdout, Kind::Stdout, redactor.clone(), job.output_limit)?,
                stderr: Stream::new(child.stderr, Kind::Stderr, redactor, job.output_limit)?,
            };
            run.drive(&job, Some(&mut *channel), signals, &mut spool);
            usage = run.usage;
            nobody_left = run.left == Left::Nobody;
            asked = run.asked_late;
            let ended = run.ended.unwrap_or_else(Instant::now);
            missing.extend(run.stdout.missing());
            missing.extend(run.stderr.missing());
            report.stopped = run.stopped;
            report.stdout = run.stdout.totals();
            report.stderr = run.stderr.totals();
            // Without an ending the first process is one of those that can't be killed; SIGKILL is on it.
            report.ending = run.ending.unwrap_or(Ending::Signalled { signal: libc::SIGKILL });
            ended
        }
        Err(ending) => {
            report.ending = masked(ending, redactor);
            Instant::now()
        }
    };
    let of_all = processes::cpu_used().zip(cpu_before).map(|(now, before)| now.saturating_sub(before));
    let cpu = of_all.map_or(usage.cpu, |of_all| of_all.max(usage.cpu));
    report.cpu_ms = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
    report.max_rss_bytes = usage.max_rss_bytes;
    report.oom_kills = processes::oom_kills().saturating_sub(oom_before);
    let run_time = ended.saturating_duration_since(start);
    report.run_ms = u64::try_from(run_time.as_millis()).unwrap_or(u64::MAX);
    report.end_ns = start_ns.saturating_add(u64::try_from(run_time.as_nanos()).unwrap_or(u64::MAX));
    // All of its processes are gone: nobody changes its files any more.
    if let Some(collector) = collector {
        let ran = !matches!(report.ending, Ending::NotStarted { .. });
        let stopped = report.stopped.is_some();
        report.artifacts = collector.collect(ran, stopped, &mut spool, &mut || {
            asked |= is_asked(channel, signals);
            asked
        });
    }
    // One patience for all that is left to say: the agent knows it, and does not wait for ever.
    let patience = Instant::now() + REPORT_PATIENCE;
    for sentence in missing {
        spool.say(&sentence, patience);
    }
    spool.insist(Kind::Report, 0, &serde_json::to_vec(&report)?, patience)?;
    spool.release();
    let by_itself = report.stopped.is_none()
        && !asked
        && !matches!(report.ending, Ending::NotStarted { sandbox: true, .. });
    Ok((by_itself && nobody_left && report.oom_kills == 0, spool))
}

/// Whether the end was asked for meanwhile. The job has had its own; but whoever asks waits for the report.
fn is_asked(channel: &mut Channel, signals: &mut Signals) -> bool {
    // A channel that is closed has nothing more to say.
    signals.take().terminate || matches!(channel.poll_stop(), Ok(Some(_)))
}

/// Why a job was not started may name its program or its folder, and these a secret (`PGPASSWORD=... psql` without a
/// shell): the same is masked there as in the output.
fn masked(ending: Ending, mut redactor: Redactor) -> Ending {
    let Ending::NotStarted { code, error, sandbox } = ending else { return ending };
    let mut masked = Vec::with_capacity(error.len());
    redactor.push(error.as_bytes(), &mut masked);
    redactor.finish(&mut masked);
    Ending::NotStarted { code, error: String::from_utf8_lossy(&masked).into_owned(), sandbox }
}

impl Run {
    fn drive(
        &mut self,
        job: &Job,
        mut channel: Option<&mut Channel>,
        signals: &mut Signals,
        spool: &mut Spooler,
    ) {
        let mut buffer = Box::new([0; MAX_BODY]);
        if channel.as_ref().is_some_and(|c| c.no_waiting().is_err()) {
            channel = None;
        }
        // What was signalled before the first wait, a death among them, is in the descriptor.
        loop {
            if self.finished() {
                break;
            }
            self.on_time(Instant::now());
            let ready = self.wait(channel.as_deref(), signals);
            if ready.signals {
                let seen = signals.take();
                if seen.terminate {
                    self.stop(Stop::Cancelled);
                }
            }
            if ready.channel {
                match channel.as_mut().map(|channel| channel.poll_stop()) {
                    Some(Ok(Some(why))) => self.stop(why),
                    Some(Err(_)) => channel = None,
                    _ => {}
                }
            }
            if ready.signals || self.left == Left::More {
                self.collect();
            }
            if ready.stdout {
                self.stdout.look(&mut buffer, spool);
            }
            if ready.stderr {
                self.stderr.look(&mut buffer, spool);
            }
            if job.end_at_output_limit && (self.stdout.over_limit() || self.stderr.over_limit()) {
                self.stop(Stop::OutputLimit);
            }
        }
        // Only where a process could not be killed is a pipe still open; what is in it is taken.
        for stream in [&mut self.stdout, &mut self.stderr] {
            while stream.look(&mut buffer, spool) == Looked::Data {}
            stream.end(spool);
        }
    }

    fn collect(&mut self) {
        self.left = processes::collect(Some(self.main), &mut self.ending, &mut self.usage);
        if self.ending.is_some() && self.ended.is_none() {
            self.ended = Some(Instant::now());
        }
    }

    /// Begins to end the job. Only the first reason counts, and none after the job's own end.
    fn stop(&mut self, why: Stop) {
        if self.ended.is_some() {
            self.asked_late |= why != Stop::OutputLimit;
            return;
        }
        if !matches!(self.phase, Phase::Running { .. }) {
            return;
        }
        self.stopped = Some(why);
        if self.grace.is_zero() {
            self.kill();
            return;
        }
        processes::signal_all(Signal::SIGTERM);
        // A stopped process hears nothing before it goes on.
        processes::signal_all(Signal::SIGCONT);
        self.phase = Phase::Asked { kill_at: Instant::now().checked_add(self.grace) };
    }

    fn kill(&mut self) {
        processes::signal_all(Signal::SIGKILL);
        let now = Instant::now();
        let since = if let Phase::Killing { since, .. } = self.phase { since } else { now };
        self.phase = Phase::Killing { since, again: now + KILL_AGAIN };
        self.collect();
    }

    fn at_end_of_streams(&self) -> bool {
        self.stdout.pipe().is_none() && self.stderr.pipe().is_none()
    }

    /// Does what is due.
    fn on_time(&mut self, now: Instant) {
        if let Some(due) = self.due()
            && due <= now
        {
            match self.phase {
                Phase::Running { .. } if self.ended.is_none() => self.stop(Stop::Timeout),
                _ => self.kill(),
            }
        }
    }

    /// When something is to be done next.
    fn due(&self) -> Option<Instant> {
        let leftover =
            self.ended.map(|ended| if self.at_end_of_streams() { ended } else { ended + LEFTOVER });
        match self.phase {
            Phase::Killing { again, .. } => Some(again),
            Phase::Running { .. } | Phase::Asked { .. } if leftover.is_some() => leftover,
            Phase::Running { deadline } => deadline,
            Phase::Asked { kill_at } => kill_at,
        }
    }

    fn finished(&self) -> bool {
        if self.ended.is_some() && self.left == Left::Nobody && self.at_end_of_streams() {
            return true;
        }
        matches!(self.phase, Phase::Killing { since, .. } if since.elapsed() > UNKILLABLE)
    }

    fn wait(&self, channel: Option<&Channel>, signals: &Signals) -> Ready {
        let now = Instant::now();
        // After the end there is no reason to let output gather.
        let readable =
            |stream: &Stream| self.ended.is_some() || stream.not_before().is_none_or(|at| at <= now);
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let mut which = vec![0];
        let mut wake = self.due();
        for (id, stream) in [(1, &self.stdout), (2, &self.stderr)] {
            let Some(pipe) = stream.pipe() else { continue };
            if readable(stream) {
                fds.push(PollFd::new(pipe, PollFlags::POLLIN));
                which.push(id);
            } else {
                wake = [wake, stream.not_before()].into_iter().flatten().min();
            }
        }
        if let Some(channel) = channel {
            fds.push(PollFd::new(channel.as_fd(), PollFlags::POLLIN));
            which.push(3);
        }
        let mut timeout = wake.map(|at| at.saturating_duration_since(now));
        if self.left == Left::More {
            timeout = Some(Duration::ZERO);
        }
        // An hour at a time: no number is too large for the system then.
        let timeout = timeout.unwrap_or(Duration::MAX).min(Duration::from_secs(3600));
        let spec = TimeSpec::nanoseconds(i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX));
        match ppoll(&mut fds, Some(spec), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ready::default(),
            // Not with these descriptors; do not spin.
            Err(_) => std::thread::sleep(KILL_AGAIN),
        }
        let mut ready = Ready::default();
        for (fd, id) in fds.iter().zip(which) {
            let any = fd.any().unwrap_or(true);
            match id {
                0 => ready.signals = any,
                1 => ready.stdout = any,
                2 => ready.stderr = any,
                _ => ready.channel = any,
            }
        }
        ready
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Ready {
    signals: bool,
    stdout: bool,
    stderr: bool,
    channel: bool,
}
