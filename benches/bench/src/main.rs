//! `make bench`: what the agent does, beside what does the same without it, interleaved in one run.
//! docs/benchmark.md explains each row. Writes a table to standard output and a summary to a file.

mod agent;
mod constant;
mod docker;
mod rows;
mod stats;
mod wire;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use serde_json::{Value, json};

use docker::Peers;
use rows::{Scale, Setting};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "usage: quickcmd-bench --agent PROGRAM --image IMAGE --out FILE [--quick] [--only GROUP]...\n\
                     groups: warm cold sustained reuse submissions output readers memory history";

struct Arguments {
    agent: PathBuf,
    image: String,
    out: PathBuf,
    quick: bool,
    only: Vec<String>,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Option<Arguments> {
    let (mut agent, mut image, mut out, mut quick, mut only) = (None, None, None, false, Vec::new());
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--agent" => agent = Some(PathBuf::from(given.next()?)),
            "--image" => image = Some(given.next()?),
            "--out" => out = Some(PathBuf::from(given.next()?)),
            "--quick" => quick = true,
            "--only" => only.push(given.next()?),
            _ => return None,
        }
    }
    Some(Arguments { agent: agent?, image: image?, out: out?, quick, only })
}

#[tokio::main]
async fn main() -> ExitCode {
    // Somebody else may have chosen one already; there is no other to choose from.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let given: Vec<String> = std::env::args().skip(1).collect();
    let done = match given.as_slice() {
        [argument, port, cert, key] if argument == constant::ARGUMENT => match port.parse() {
            Ok(port) => constant::serve(port, Path::new(cert), Path::new(key)).await,
            Err(_) => Err("no port".into()),
        },
        _ => match arguments(given.into_iter()) {
            Some(arguments) => measure(arguments).await,
            None => {
                eprintln!("{USAGE}");
                return ExitCode::from(64);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: Arguments) -> Result<()> {
    let begun = Instant::now();
    let root = arguments.out.parent().unwrap_or(Path::new(".")).join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&root)?;
    let root = root.canonicalize()?;
    let mut peers = Peers::new(&arguments.image).await?;
    let machine = machine(&peers).await?;
    let scale = if arguments.quick { Scale::quick() } else { Scale::full() };
    let setting =
        Setting { root: &root, program: &arguments.agent.canonicalize()?, image: &arguments.image, scale };
    let measured = rows::all(&setting, &mut peers, &arguments.only).await;
    peers.clean().await?;
    std::fs::remove_dir_all(&root)?;
    let (rows, failed) = measured?;

    let mode = if arguments.quick { "quick" } else { "full" };
    let summary = stats::summary(&rows, &machine, mode);
    std::fs::write(&arguments.out, format!("{summary:#}\n"))?;
    println!("\n{}\n", stats::table(&rows));
    println!("Machine: {machine}");
    println!(
        "Mode: {mode}, {:.0} s. The summary is in {}.",
        begun.elapsed().as_secs_f64(),
        arguments.out.display()
    );
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

/// What the figures come from.
async fn machine(peers: &Peers) -> Result<Value> {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        text.lines()
            .find_map(|line| Some(line.strip_prefix(key)?.trim_start_matches([' ', '\t', ':']).to_owned()))
    };
    let memory = after(&file("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let runc = Command::new("runc").arg("--version").output().ok();
    let runc = runc.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let mut machine = json!({
        "cores": std::thread::available_parallelism()?.get(),
        "cpu": after(&file("/proc/cpuinfo"), "model name"),
        "memory_gib": (kib + (1 << 19)) >> 20,
        "kernel": file("/proc/sys/kernel/osrelease").trim(),
        "runc": after(&runc, "runc version"),
        "agent": env!("CARGO_PKG_VERSION"),
    });
    if let (Some(all), Value::Object(docker)) = (machine.as_object_mut(), peers.version().await?) {
        all.extend(docker);
    }
    Ok(machine)
}
