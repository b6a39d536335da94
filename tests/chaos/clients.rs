//! The controllers in a storm: they submit, ask, follow and cancel, repeat what was not answered, and write down what
//! they saw.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quickcmd::{
    client::{Client, Error, Retry, Settings, Trust},
    wire::key::SigningKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    harness::{Agent, CONTROLLER, SECRET, cancel, now, payload, sign},
    model::{Event, History, Plan},
    rng::Rng,
};

/// Jobs of one controller that have not ended.
const OPEN: usize = 12;

/// Speaks to the agent, whichever life of it is there.
#[derive(Clone)]
pub struct Caller {
    http: reqwest::Client,
    url: String,
    certificate: PathBuf,
    pub history: History,
    plans: Arc<Mutex<Vec<Plan>>>,
    /// Nobody waits for anything any longer than this.
    pub give_up: CancellationToken,
}

impl Caller {
    pub fn new(agent: &Agent, history: History) -> Caller {
        let pem = std::fs::read(agent.dir.path().join("cert.pem")).expect("a certificate");
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
            .timeout(Duration::from_secs(5))
            .build()
            .expect("a client");
        Caller {
            http,
            url: agent.url(""),
            certificate: agent.dir.path().join("cert.pem"),
            history,
            plans: Arc::default(),
            give_up: CancellationToken::new(),
        }
    }

    pub fn plans(&self) -> Vec<Plan> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One submitter: new jobs until the token, each looked after to its end.
    pub async fn submit_many(self, name: usize, mut rng: Rng, stop: CancellationToken, jobs: TaskTracker) {
        let open = Arc::new(tokio::sync::Semaphore::new(OPEN));
        for number in 0.. {
            let permit = tokio::select! {
                () = stop.cancelled() => return,
                permit = Arc::clone(&open).acquire_owned() => permit.expect("never closed"),
            };
            let plan = Plan::some(format!("storm-{name}-{number}"), &mut rng);
            self.plans.lock().unwrap_or_else(PoisonError::into_inner).push(plan.clone());
            let (caller, rng_of_job, tracker) = (self.clone(), rng.fork(), jobs.clone());
            jobs.spawn(async move {
                let give_up = caller.give_up.clone();
                tokio::select! {
                    () = caller.one_job(plan, rng_of_job, &tracker) => {}
                    () = give_up.cancelled() => {}
                }
                drop(permit);
            });
            tokio::time::sleep(rng.millis(20, 200)).await;
        }
    }

    async fn one_job(&self, plan: Plan, mut rng: Rng, tracker: &TaskTracker) {
        let more = json!({"job_id": plan.id, "ttl": now() + 3600, "sandbox": {"timeout_seconds": plan.timeout_seconds}});
        let body = sign(&payload(&plan.command, more).to_string());
        if !self.until_accepted(&plan.id, &body).await {
            return;
        }
        if rng.percent(30) {
            let (caller, id) = (self.clone(), plan.id.clone());
            tracker.spawn(async move {
                let give_up = caller.give_up.clone();
                tokio::select! {
                    () = caller.follow(&id) => {}
                    () = give_up.cancelled() => caller.history.add(Event::FollowFailed { id, error: "no final frame".to_owned() }),
                }
            });
        }
        let cancel_at = plan.cancel_after.map(|ms| Instant::now() + Duration::from_millis(ms));
        let mut cancelled = false;
        let mut ends = 0;
        while ends < 2 {
            tokio::time::sleep(rng.millis(100, 600)).await;
            if !cancelled && cancel_at.is_some_and(|at| Instant::now() > at) {
                // That it has ended already is an answer, too.
                let path = format!("/api/v1/jobs/{}/cancel", plan.id);
                cancelled = self.post(&path, cancel(&plan.id, CONTROLLER)).await.is_some();
            }
            // An end is looked at twice: it must not change.
            ends += usize::from(self.look(&plan.id).await);
        }
    }

    /// Sends the same bytes until there is an answer that means something. `false`: a refusal.
    async fn until_accepted(&self, id: &str, body: &str) -> bool {
        loop {
            let event = match self.post("/api/v1/jobs", body.to_owned()).await {
                Some((202, answer)) => {
                    let duplicate = answer["duplicate"] == true;
                    self.history.add(Event::Accepted { id: id.to_owned(), duplicate });
                    return true;
                }
                // Full, draining, or a database that is busy: later.
                Some((429 | 503, _)) => None,
                Some((status, answer)) => {
                    let code = answer["code"].as_str().unwrap_or_default().to_owned();
                    self.history.add(Event::Refused { id: id.to_owned(), status, code });
                    return false;
                }
                None => Some(Event::Unanswered { id: id.to_owned() }),
            };
            if let Some(event) = event {
                self.history.add(event);
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// Asks for the status; whether the job has ended.
    async fn look(&self, id: &str) -> bool {
        match self.get(&format!("/api/v1/jobs/{id}")).await {
            Some((200, answer)) => {
                let status = answer["status"].as_str().unwrap_or_default().to_owned();
                let end = matches!(&*status, "completed" | "failed" | "rejected");
                self.history.add(Event::Seen { id: id.to_owned(), status, result: answer["result"].clone() });
                end
            }
            Some((404, _)) => {
                self.history.add(Event::Unknown { id: id.to_owned() });
                // It would be asked for ever; the checker says what that means.
                true
            }
            _ => false,
        }
    }

    /// Follows to the final frame with the project's own client, over as many connections as it takes.
    async fn follow(&self, id: &str) {
        let mut settings = Settings::new(self.url.parse().expect("a URL"), CONTROLLER);
        settings.key = Some(SigningKey::hmac(SECRET));
        settings.trust = Trust::File(self.certificate.clone());
        settings.retry = Retry { longest: Duration::from_secs(1), ..Retry::default() };
        let client = Client::new(settings).expect("good settings");
        let mut hashes = [Sha256::new(), Sha256::new()];
        let mut lengths = [0, 0];
        let mut from = 1;
        let failed = |error: String| self.history.add(Event::FollowFailed { id: id.to_owned(), error });
        loop {
            let mut follow = client.follow(id, from, true);
            while let Some(frame) = follow.next().await {
                let frame = match frame {
                    Ok(frame) => frame,
                    // A client that was never connected takes a refused connection for a wrong address.
                    Err(Error::Connect { .. }) => break,
                    Err(error) => return failed(error.to_string()),
                };
                if frame.r#final {
                    let [stdout_sha256, stderr_sha256] = hashes.map(|hash| hex::encode(hash.finalize()));
                    self.history.add(Event::Followed { id: id.to_owned(), stdout_sha256, stderr_sha256 });
                    return;
                }
                let stream = match &*frame.stream {
                    "stdout" => 0,
                    "stderr" => 1,
                    _ => continue,
                };
                if frame.offset != lengths[stream] {
                    return failed(format!(
                        "{} goes on at {} after {} bytes",
                        frame.stream, frame.offset, lengths[stream]
                    ));
                }
                lengths[stream] += frame.data.len() as u64;
                hashes[stream].update(&frame.data);
            }
            from = follow.next_seq();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn post(&self, path: &str, body: String) -> Option<(u16, Value)> {
        let request =
            self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        answer(request.body(body)).await
    }

    async fn get(&self, path: &str) -> Option<(u16, Value)> {
        answer(self.http.get(format!("{}{path}", self.url))).await
    }

    /// The recorded bytes of a stream.
    pub async fn output(&self, id: &str, stream: &str) -> Result<Vec<u8>, String> {
        let url = format!("{}/api/v1/jobs/{id}/output?stream={stream}", self.url);
        let answer = self.http.get(url).send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| error.to_string())?;
        match status.as_u16() {
            200 => Ok(bytes.to_vec()),
            _ => Err(format!("{status} {}", String::from_utf8_lossy(&bytes))),
        }
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, serde_json::from_str(&answer.text().await.ok()?).ok()?))
}
