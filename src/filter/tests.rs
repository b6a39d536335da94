//! The filter's two judgements, of lines and of bodies, against what an agent that was taken over might try.

mod bodies;
mod docker;
mod lists;
mod properties;
mod start;

use std::collections::HashMap;

use hyper::{HeaderMap, Method, Uri, header};
use serde_json::{Value, json};

use super::{
    Refusal, Rules, body,
    call::{self, Asked, Name},
    own,
};
use crate::{
    config::Limits,
    sandbox::{LABEL_AGENT, LABEL_HOME, LABEL_POOL, Mould},
    wire::payload::Network,
};

const NAME: &str = "quickcmd-0123abcd-7-1-beef";
const IMAGE: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const ID: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn rules() -> Rules {
    Rules {
        sandboxes: "/var/lib/quickcmd/sandboxes".to_owned(),
        user: (65_532, 65_532),
        images: Vec::new(),
        runtimes: vec!["runsc".to_owned()],
        bridge: false,
    }
}

fn name() -> Name {
    Name::parse(NAME).unwrap()
}

fn limits() -> Limits {
    Limits { cpu: 0.5, memory: 256 << 20, pids: 64, timeout_seconds: 60, tmpfs: 64 << 20 }
}

fn mould() -> Mould {
    Mould {
        user: (65_532, 65_532),
        workdir: "/work".to_owned(),
        nofile: 1024,
        shm: 16 << 20,
        runtime: None,
        image: IMAGE.to_owned(),
        network: Network::None,
        limits: limits(),
        folder: format!("/var/lib/quickcmd/sandboxes/{NAME}"),
        volumes: vec!["/data".to_owned()],
        labels: HashMap::from([
            (LABEL_AGENT.to_owned(), "agent-1".to_owned()),
            (LABEL_HOME.to_owned(), "0123abcd".to_owned()),
            (LABEL_POOL.to_owned(), "1".to_owned()),
        ]),
    }
}

fn create(body: &Value) -> Result<Value, Refusal> {
    body::create(&rules(), &name(), body.to_string().as_bytes()).map(|create| create.body)
}

/// A table for a snapshot: what was asked, and what is said to it.
fn table<T>(rows: impl IntoIterator<Item = (String, Result<T, Refusal>)>) -> String {
    let mut lines = String::new();
    for (asked, said) in rows {
        let said = said.map_or_else(|no| format!("{} {no}", no.status.as_u16()), |_| "PASSES".to_owned());
        lines.push_str(&format!("{asked}\n    {said}\n"));
    }
    lines
}

fn line(method: &str, target: &str) -> Result<Asked, Refusal> {
    let uri: Uri = target.parse().map_err(|_| Refusal::bad("is no URI"))?;
    Asked::parse(&Method::from_bytes(method.as_bytes()).unwrap(), &uri)
}

#[test]
fn the_agents_calls_pass_and_are_written_anew() {
    let filters = "%7B%22label%22%3A%5B%22com.quickcmd.home%3D0123abcd%22%5D%7D";
    for (method, asked, sent) in [
        ("GET", "/_ping".to_owned(), "/_ping".to_owned()),
        ("GET", "/v1.41/version".to_owned(), "/v1.41/version".to_owned()),
        ("GET", "/info".to_owned(), "/info".to_owned()),
        (
            "GET",
            format!("/v1.41/containers/json?all=true&size=false&filters={filters}"),
            format!("/v1.41/containers/json?all=true&filters={filters}"),
        ),
        (
            "POST",
            format!("/containers/create?name={NAME}&platform="),
            format!("/containers/create?name={NAME}"),
        ),
        ("GET", format!("/containers/{NAME}/json"), format!("/containers/{NAME}/json")),
        ("GET", format!("/containers/{ID}/json?size=false"), format!("/containers/{ID}/json")),
        ("POST", format!("/containers/{ID}/start"), format!("/containers/{ID}/start")),
        ("POST", format!("/containers/{ID}/update"), format!("/containers/{ID}/update")),
        (
            "POST",
            format!("/containers/{ID}/kill?signal=SIGKILL"),
            format!("/containers/{ID}/kill?signal=SIGKILL"),
        ),
        (
            "POST",
            format!("/containers/{ID}/wait?condition=not-running"),
            format!("/containers/{ID}/wait?condition=not-running"),
        ),
        (
            "DELETE",
            format!("/containers/{ID}?v=true&force=true&link=false"),
            format!("/containers/{ID}?v=true&force=true"),
        ),
        (
            "GET",
            "/v1.41/images/registry.example.com:5000/a/b:1/json".to_owned(),
            "/v1.41/images/registry.example.com:5000/a/b:1/json".to_owned(),
        ),
        ("GET", format!("/images/{IMAGE}/json"), format!("/images/{IMAGE}/json")),
        (
            "POST",
            "/images/create?fromImage=host%3A5000%2Fa&tag=1&platform=".to_owned(),
            "/images/create?fromImage=host%3A5000%2Fa&tag=1".to_owned(),
        ),
    ] {
        let read = line(method, &asked).unwrap_or_else(|no| panic!("{method} {asked}: {no}"));
        assert_eq!((read.method().as_str(), read.target()), (method, sent));
    }
}

#[test]
fn other_calls_are_refused() {
    let rows = [
        // Another way into a container, or out of one.
        ("POST", "/containers/ID/exec"),
        ("POST", "/exec/ID/start"),
        ("POST", "/containers/ID/attach?stream=1&stdin=1"),
        ("GET", "/containers/ID/attach/ws"),
        ("GET", "/containers/ID/archive?path=/etc/shadow"),
        ("PUT", "/containers/ID/archive?path=/"),
        ("GET", "/containers/ID/export"),
        ("GET", "/containers/ID/logs?stdout=1"),
        ("GET", "/containers/ID/top"),
        ("POST", "/containers/ID/rename?name=x"),
        ("POST", "/containers/ID/restart"),
        ("POST", "/containers/ID/stop"),
        ("POST", "/containers/ID/unpause"),
        ("POST", "/commit?container=ID"),
        ("POST", "/containers/prune"),
        // Other powers.
        ("POST", "/build?remote=http://x"),
        ("POST", "/session"),
        ("POST", "/grpc"),
        ("POST", "/volumes/create"),
        ("GET", "/volumes"),
        ("POST", "/networks/create"),
        ("POST", "/networks/host/connect"),
        ("POST", "/swarm/init"),
        ("POST", "/services/create"),
        ("GET", "/secrets"),
        ("POST", "/plugins/pull?remote=x"),
        ("POST", "/images/load"),
        ("DELETE", "/images/alpine"),
        ("POST", "/images/alpine/push"),
        ("POST", "/auth"),
        ("GET", "/events"),
        ("GET", "/system/df"),
        ("CONNECT", "/containers/ID/start"),
        ("OPTIONS", "/_ping"),
        ("HEAD", "/_ping"),
        ("PUT", "/containers/ID/start"),
        // The right call about the wrong thing.
        ("GET", "/containers/json?all=true"),
        ("GET", "/containers/json?all=true&filters=%7B%7D"),
        ("GET", "/containers/json?all=true&filters=%7B%22label%22%3A%5B%22com.quickcmd.home%22%5D%7D"),
        (
            "GET",
            "/containers/json?all=true&filters=%7B%22label%22%3A%5B%22com.quickcmd.home%3D0123abcd%22%5D%2C%22name%22%3A%5B%22x%22%5D%7D",
        ),
        ("POST", "/containers/create"),
        ("POST", "/containers/create?name=postgres"),
        ("POST", "/containers/create?name=quickcmd-docker-filter"),
        ("POST", "/containers/create?name=quickcmd-0123abcd-7&platform=linux/arm64"),
        ("POST", "/containers/create?name=quickcmd-0123abcd-7&name=postgres"),
        ("POST", "/containers/create?name=quickcmd-0123abcd-..%2F..%2Fx"),
        ("GET", "/containers/postgres/json"),
        ("POST", "/containers/postgres/start"),
        ("POST", "/containers/e3b0c44298fc/kill?signal=SIGKILL"),
        ("POST", "/containers/ID/start?checkpoint=x"),
        ("POST", "/containers/ID/start?detachKeys=x"),
        ("POST", "/containers/ID/kill"),
        ("POST", "/containers/ID/kill?signal=SIGUSR1"),
        ("POST", "/containers/ID/wait?condition=removed"),
        ("DELETE", "/containers/ID"),
        ("DELETE", "/containers/ID?v=true&force=true&link=true"),
        ("POST", "/images/create?fromSrc=http://x&repo=alpine"),
        ("POST", "/images/create?fromImage=alpine"),
        ("POST", "/images/create?fromImage=alpine&tag=1&changes=USER%20root"),
        ("POST", "/images/create?fromImage=..%2Fa&tag=1"),
        ("POST", "/images/create?fromImage=a&tag=1%26repo%3Db"),
        ("GET", "/images/json"),
        ("GET", "/images/alpine/history"),
        // Two readings of one line.
        ("GET", "/images/../containers/postgres/json"),
        ("GET", "/images/a/../../containers/postgres/json"),
        ("POST", "/containers/%65xec/start"),
        ("POST", "/containers//create?name=quickcmd-0123abcd-7"),
        ("GET", "//_ping"),
        ("GET", "/_ping/"),
        ("GET", "/./_ping"),
        ("GET", "/_ping;x=1"),
        ("GET", "/v1.41"),
        ("GET", "/v1.12/version"),
        ("GET", "/v1.041/version"),
        ("GET", "/v2.0/version"),
        ("GET", "/v1.41/v1.41/version"),
        ("GET", "http://docker/_ping"),
        ("GET", "/_ping?%zz=1"),
        ("GET", "/_ping?x"),
        ("OPTIONS", "*"),
    ];
    let rows =
        rows.map(|(method, target)| (format!("{method} {target}"), line(method, &target.replace("ID", ID))));
    let long = format!("/images/{}/json", "a".repeat(5000));
    let text =
        table(rows) + &table([("GET /images/aaa.../json, 5000 of them".to_owned(), line("GET", &long))]);
    assert!(!text.contains("PASSES"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn headers_and_lengths_of_others_are_refused() {
    let rows: &[&[(&str, &str)]] = &[
        &[("upgrade", "tcp"), ("connection", "upgrade")],
        &[("connection", "Upgrade")],
        &[("connection", "keep-alive, upgrade")],
        &[("transfer-encoding", "chunked")],
        &[("transfer-encoding", "chunked"), ("content-length", "3")],
        &[("expect", "100-continue")],
        &[("x-registry-auth", "e30")],
        &[("x-registry-config", "e30")],
        &[("content-type", "application/x-tar")],
        &[("content-encoding", "gzip")],
        &[("te", "trailers")],
        &[("trailer", "x")],
        &[("x-http-method-override", "DELETE")],
        &[("host", "a"), ("host", "b")],
        &[("content-length", "1"), ("content-length", "2")],
        &[("content-length", "+5")],
        &[("content-length", "5, 5")],
        &[("content-length", "")],
        &[("content-length", "99999999999999999999")],
        &[("content-length", "262145")],
    ];
    let judge = |pairs: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        call::headers(&headers).and_then(|()| call::length(&headers))
    };
    let text = table(rows.iter().map(|pairs| (format!("{pairs:?}"), judge(pairs))));
    assert!(!text.contains("PASSES"), "{text}");
    insta::assert_snapshot!(text);

    assert_eq!(
        judge(&[("host", "docker"), ("content-type", "application/json"), ("content-length", "262144")]),
        Ok(262_144)
    );
    assert_eq!(judge(&[("connection", "keep-alive")]), Ok(0));
}

#[test]
fn a_container_is_the_agents_by_name_label_and_mount_together() {
    let whole = json!({
        "Id": ID,
        "Name": format!("/{NAME}"),
        "Config": {"Labels": {"com.quickcmd.home": "0123abcd"}},
        "Mounts": [{"Type": "bind", "Destination": "/.quickcmd",
                    "Source": format!("/var/lib/quickcmd/sandboxes/{NAME}")}],
    });
    assert_eq!(own::agents(&rules(), &whole).unwrap().as_str(), ID);
    // The same in the form that lists have.
    let listed = |whole: &Value| {
        json!({"Id": whole["Id"], "Names": [whole["Name"]], "Labels": whole["Config"]["Labels"],
               "Mounts": whole["Mounts"]})
    };
    assert!(own::listed(&rules(), &listed(&whole)));
    assert!(!own::listed(&rules(), &json!({"Id": ID})) && !own::listed(&rules(), &Value::Null));
    for (place, value) in [
        ("/Id", json!("short")),
        ("/Name", json!("/postgres")),
        ("/Name", json!("/quickcmd-0123abcd-8-1-beef")),
        ("/Config/Labels/com.quickcmd.home", json!("ffffffff")),
        ("/Config/Labels", Value::Null),
        ("/Mounts/0/Source", json!("/elsewhere")),
        ("/Mounts/0/Type", json!("volume")),
        ("/Mounts/0/Destination", json!("/x")),
        ("/Mounts", json!([])),
        ("/Mounts", Value::Null),
    ] {
        let mut other = whole.clone();
        *other.pointer_mut(place).unwrap() = value.clone();
        assert_eq!(own::agents(&rules(), &other), None, "{place} = {value}");
        assert!(place == "/Id" || !own::listed(&rules(), &listed(&other)), "{place} = {value}");
    }
}

#[test]
fn images_are_allowed_as_they_are_written_or_by_the_tag_that_is_meant() {
    let some = Rules { images: vec!["alpine".to_owned(), "host:5000/a@sha256:12".to_owned()], ..rules() };
    for (image, allowed) in [
        ("alpine", true),
        ("alpine:latest", true),
        ("alpine:3", false),
        ("host:5000/a@sha256:12", true),
        ("host:5000/a", false),
        ("host:5000/alpine", false),
    ] {
        assert_eq!(some.allows_image(image), allowed, "{image}");
        assert!(rules().allows_image(image), "no list, any image");
    }
    assert_eq!(call::pulled("host:5000/a", "sha256:12"), "host:5000/a@sha256:12");
    assert_eq!(call::pulled("alpine", "latest"), "alpine:latest");
}

#[test]
fn rules_that_would_let_all_pass_are_refused() {
    assert_eq!(rules().check(), Ok(()));
    for sandboxes in ["", "/", "sandboxes", "/a/../..", "/a//b", "/a/", "/a/./b"] {
        assert!(Rules { sandboxes: sandboxes.to_owned(), ..rules() }.check().is_err(), "{sandboxes}");
    }
    for user in [(0, 1), (1, 0)] {
        assert!(Rules { user, ..rules() }.check().is_err(), "{user:?}");
    }
}
