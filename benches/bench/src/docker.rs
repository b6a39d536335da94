//! The peers: `docker run`, and the same calls of Docker's API by hand, with the agent's own image and limits.

use std::{collections::HashMap, io::Read, path::Path, process::Command, time::Instant};

use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{
        CreateContainerOptions, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::{
    Result,
    agent::{Agent, PATIENCE, unique},
    stats::ms,
};

/// The label that an agent's containers bear, with its id.
pub const LABEL_AGENT: &str = "com.quickcmd.agent";
/// The label of the peers' own containers.
const LABEL_PEER: &str = "com.quickcmd.bench";

/// Docker, as somebody would use it without the agent.
pub struct Peers {
    api: Docker,
    image: String,
    run: Vec<String>,
    body: Option<ContainerCreateBody>,
}

/// How long `docker run` took.
pub struct Ran {
    pub first_byte_ms: f64,
    pub total_ms: f64,
    pub bytes: u64,
}

impl Peers {
    pub async fn new(image: &str) -> Result<Peers> {
        let api = Docker::connect_with_unix_defaults()?.negotiate_version().await?;
        Ok(Peers { api, image: image.to_owned(), run: Vec::new(), body: None })
    }

    /// Takes image, limits and hardening over from a container that this agent has made for a job.
    pub async fn copy_from(&mut self, agent: &Agent, folder: &Path) -> Result<()> {
        let client = agent.client()?;
        let job = agent.job("sleep 60");
        client.submit(&job).await?;
        let end = Instant::now() + PATIENCE;
        let found = loop {
            let ids = self.ids(LABEL_AGENT, &agent.id).await?;
            // One that is being created is listed before it can be looked at.
            if let Some(id) = ids.first()
                && let Ok(found) = self.api.inspect_container(id, None).await
            {
                break found;
            }
            if Instant::now() > end {
                return Err(format!("the agent makes no container:\n{}", agent.log()).into());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        client.cancel(&job.job_id, None).await?;
        let host = found.host_config.ok_or("an inspection without HostConfig")?;
        self.run = run_arguments(&host, folder)?;
        let mut body = serde_json::to_value(found.config.ok_or("an inspection without Config")?)?;
        let mut host = serde_json::to_value(&host)?;
        // The supervisor's folder is the agent's; the peer mounts an empty one in its place.
        if let Some(mounts) = host["Mounts"].as_array_mut() {
            for mount in mounts.iter_mut().filter(|mount| mount["Type"] == "bind") {
                mount["Source"] = json!(folder);
            }
        }
        body["HostConfig"] = host;
        body["Entrypoint"] = json!(["/bin/true"]);
        body["Labels"] = json!({LABEL_PEER: std::process::id().to_string()});
        self.body = Some(serde_json::from_value(body)?);
        Ok(())
    }

    /// `docker run --rm` of a shell command, attached.
    pub async fn run(&self, command: &str, cores: Option<f64>) -> Result<Ran> {
        let mut docker = Command::new("docker");
        docker.args(["run", "--rm", "--log-driver", "none"]).args(&self.run);
        docker.args(["--label", &format!("{LABEL_PEER}={}", std::process::id())]);
        if let Some(cores) = cores {
            docker.args(["--cpus", &cores.to_string()]);
        }
        docker.args([&self.image, "/bin/sh", "-c", command]);
        docker.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let mut child = docker.spawn()?;
            let mut out = child.stdout.take().ok_or("no pipe")?;
            let mut buffer = vec![0; 64 << 10];
            let (mut bytes, mut first) = (0u64, None);
            loop {
                let count = out.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                first.get_or_insert_with(|| begun.elapsed());
                bytes += count as u64;
            }
            let status = child.wait()?;
            let total = begun.elapsed();
            if !status.success() {
                return Err(format!("docker run ended with {status}").into());
            }
            Ok(Ran { first_byte_ms: ms(first.unwrap_or(total)), total_ms: ms(total), bytes })
        })
        .await?
    }

    /// Create, start, wait; the time of that, and the container to be removed.
    pub async fn by_hand(&self) -> Result<(f64, String)> {
        let body = self.body.clone().ok_or("no container was copied")?;
        let name = format!("quickcmd-bench-{}-{}", std::process::id(), unique());
        let begun = Instant::now();
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let id = self.api.create_container(Some(options), body).await?.id;
        self.api.start_container(&id, None).await?;
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let waited = self.api.wait_container(&id, Some(options)).next().await;
        waited.ok_or("no answer to wait")??;
        Ok((ms(begun.elapsed()), id))
    }

    pub async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        for _ in 0..20 {
            match self.api.remove_container(id, Some(options.clone())).await {
                Ok(()) => return Ok(()),
                Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                    return Ok(());
                }
                // In progress already, or the daemon still holds its resources.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
        Err(format!("container {id} can't be removed").into())
    }

    /// Create, start, wait, remove, so many times in so many loops at once; containers a second.
    pub async fn loops(&self, count: usize, at_once: usize) -> Result<f64> {
        let begun = Instant::now();
        let one = async |_| -> Result<()> {
            let (_, id) = self.by_hand().await?;
            self.remove(&id).await
        };
        let mut all = futures_util::stream::iter(0..count).map(one).buffer_unordered(at_once);
        while let Some(done) = all.next().await {
            done?;
        }
        Ok(f64::from(u32::try_from(count)?) / begun.elapsed().as_secs_f64())
    }

    /// `docker exec` of `true` in one running container with the same limits, so many times in so many loops at once;
    /// runs a second.
    pub async fn execs(&self, count: usize, at_once: usize) -> Result<f64> {
        let mut body = self.body.clone().ok_or("no container was copied")?;
        body.entrypoint = Some(vec!["/bin/sleep".to_owned(), "3600".to_owned()]);
        let id = self.api.create_container(None::<CreateContainerOptions>, body).await?.id;
        self.api.start_container(&id, None).await?;
        let begun = Instant::now();
        let mut loops = tokio::task::JoinSet::new();
        for first in 0..at_once {
            let id = id.clone();
            loops.spawn_blocking(move || -> Result<()> {
                for _ in (first..count).step_by(at_once) {
                    let status = Command::new("docker").args(["exec", &id, "/bin/true"]).status()?;
                    if !status.success() {
                        return Err(format!("docker exec ended with {status}").into());
                    }
                }
                Ok(())
            });
        }
        while let Some(done) = loops.join_next().await {
            done??;
        }
        let rate = f64::from(u32::try_from(count)?) / begun.elapsed().as_secs_f64();
        self.remove(&id).await?;
        Ok(rate)
    }

    /// Containers with that label, in any state.
    pub async fn ids(&self, label: &str, value: &str) -> Result<Vec<String>> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.api.list_containers(Some(options)).await?;
        Ok(found.into_iter().filter_map(|container| container.id).collect())
    }

    /// Waits until an agent has at most so many containers, those that wait for jobs included.
    pub async fn until_left(&self, agent: &Agent, most: usize) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.ids(LABEL_AGENT, &agent.id).await?.len() > most {
            if Instant::now() > end {
                return Err("the agent's containers are not removed".into());
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub async fn remove_all(&self, label: &str, value: &str) -> Result<()> {
        for id in self.ids(label, value).await? {
            self.remove(&id).await?;
        }
        Ok(())
    }

    /// What this run's peers have left, and its agents where it failed.
    pub async fn clean(&self) -> Result<()> {
        let filters = HashMap::from([("label".to_owned(), vec![LABEL_AGENT.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let ours = format!("bench-{}-", std::process::id());
        for container in self.api.list_containers(Some(options)).await? {
            let labels = container.labels.unwrap_or_default();
            if let (Some(id), true) =
                (container.id, labels.get(LABEL_AGENT).is_some_and(|agent| agent.starts_with(&ours)))
            {
                self.remove(&id).await?;
            }
        }
        self.remove_all(LABEL_PEER, &std::process::id().to_string()).await
    }

    /// Name and version of what runs the containers.
    pub async fn version(&self) -> Result<Value> {
        let version = self.api.version().await?;
        let info = self.api.info().await?;
        Ok(json!({
            "docker": version.version,
            "storage": info.driver,
            "cgroup": info.cgroup_version.map(|version| version.to_string()),
            "runtime": info.default_runtime,
        }))
    }
}

/// The command line that asks for the same.
fn run_arguments(host: &HostConfig, folder: &Path) -> Result<Vec<String>> {
    let mut arguments: Vec<String> = [
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--user",
        "65532:65532",
        "--ipc",
        "private",
    ]
    .map(str::to_owned)
    .into();
    let mut push = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    let number = |value: Option<i64>, name: &str| value.ok_or_else(|| format!("no {name} in HostConfig"));
    push("--memory", number(host.memory, "Memory")?.to_string());
    push("--memory-swap", number(host.memory_swap, "MemorySwap")?.to_string());
    push("--pids-limit", number(host.pids_limit, "PidsLimit")?.to_string());
    push("--shm-size", number(host.shm_size, "ShmSize")?.to_string());
    let thousandths = number(host.nano_cpus, "NanoCpus")? / 1_000_000;
    push("--cpus", format!("{}.{:03}", thousandths / 1000, thousandths % 1000));
    for (path, options) in host.tmpfs.iter().flatten() {
        push("--tmpfs", format!("{path}:{options}"));
    }
    for limit in host.ulimits.iter().flatten() {
        let (Some(name), Some(soft), Some(hard)) = (&limit.name, limit.soft, limit.hard) else { continue };
        push("--ulimit", format!("{name}={soft}:{hard}"));
    }
    for option in host.security_opt.iter().flatten() {
        match option.strip_prefix("seccomp=") {
            // The command line takes the profile from a file.
            Some(profile) if profile.starts_with('{') => {
                let file = folder.join("seccomp.json");
                std::fs::write(&file, profile)?;
                push("--security-opt", format!("seccomp={}", file.display()));
            }
            _ => push("--security-opt", option.clone()),
        }
    }
    Ok(arguments)
}
