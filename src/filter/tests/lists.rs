//! Lists of containers: of any length, and only the agent's own come through.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{docker::Pair, rules};
use crate::filter::list::Splitter;

const LIST: &str =
    "/v1.41/containers/json?all=true&filters=%7B%22label%22%3A%5B%22com.quickcmd.home%3D0123abcd%22%5D%7D";

/// An entry of the agent's, with a label of that length that a job's image has brought.
fn own(number: usize, length: usize) -> Value {
    let name = format!("quickcmd-0123abcd-{number}-1-beef");
    json!({
        "Id": format!("{number:064x}"),
        "Names": [format!("/{name}")],
        "Labels": {"com.quickcmd.home": "0123abcd", "of-the-image": "{[\\\"".repeat(length / 4)},
        "Mounts": [{"Type": "bind", "Destination": "/.quickcmd", "Source": format!("{}/{name}", rules().sandboxes)}],
    })
}

/// One of somebody else's, with the agent's label.
fn foreign(number: usize, length: usize) -> Value {
    let mut entry = own(number, length);
    entry["Mounts"] = json!([]);
    entry
}

async fn listed(text: String) -> Option<Vec<Value>> {
    let pair = Pair::new(Box::new(move |_| (200, text.clone()))).await;
    let (status, said) = pair.ask(Method::GET, LIST).await?;
    assert_eq!(status, StatusCode::OK);
    // What Docker is asked for is narrowed to one agent's.
    assert_eq!(pair.asked(), [format!("GET {LIST}")]);
    Some(serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said:.200}")))
}

/// As much as the filter reads of any other answer.
const MUCH: usize = 8 << 20;

#[tokio::test]
async fn a_very_long_list_of_others_brings_the_agents_own() {
    let mut all: Vec<Value> = (0..3000).map(|number| foreign(number, 4096)).collect();
    for at in [0, 1500, 3002] {
        all.insert(at, own(10_000 + at, 0));
    }
    let text = Value::Array(all).to_string();
    assert!(text.len() > MUCH + MUCH / 4, "{}", text.len());
    let expected: Vec<Value> = [0, 1500, 3002].map(|at| own(10_000 + at, 0)).into();
    assert_eq!(listed(text).await.unwrap(), expected);
}

#[tokio::test]
async fn a_very_long_list_of_the_agents_own_comes_whole() {
    let all: Vec<Value> = (0..2500).map(|number| own(number, 4096)).collect();
    let text = Value::Array(all.clone()).to_string();
    assert!(text.len() > MUCH, "{}", text.len());
    assert!(listed(text).await.unwrap() == all, "another list");
}

#[tokio::test]
async fn an_empty_list_and_one_of_others_are_empty() {
    for text in ["[]".to_owned(), " [ ]\n".to_owned(), json!([foreign(1, 8), foreign(2, 8)]).to_string()] {
        assert_eq!(listed(text).await.unwrap(), [Value::Null; 0]);
    }
}

#[tokio::test]
async fn what_is_no_whole_list_breaks_the_connection() {
    let whole = json!([own(1, 8), own(2, 8)]).to_string();
    for text in [
        "",
        "null",
        "{}",
        "[1]",
        "[\"a\"]",
        "[[]]",
        "[{\"a\" 1}]",
        "[{}]{}",
        "[{}",
        whole.strip_suffix(']').unwrap(),
        &whole[..whole.len() / 2],
    ] {
        assert_eq!(listed(text.to_owned()).await, None, "{text}");
    }
}

#[tokio::test]
async fn a_list_that_docker_refuses_is_answered_as_docker_does() {
    let pair = Pair::new(Box::new(|_| (500, "{\"message\":\"no\"}".to_owned()))).await;
    let said = pair.ask(Method::GET, LIST).await.unwrap();
    assert_eq!(said, (StatusCode::INTERNAL_SERVER_ERROR, "{\"message\":\"no\"}".to_owned()));
}

/// However it comes: cut anywhere, with signs in its texts that look like structure.
#[test]
fn a_list_is_cut_at_its_entries() {
    let entries = [
        json!({}),
        json!({"a": "}]\\\"{[,", "b": [{"c": []}, "\\"], "ö": null}),
        own(1, 64),
        json!({"z": {"y": [[[]]]}}),
    ];
    let text = json!(entries).to_string();
    for size in 1..text.len() {
        let mut splitter = Splitter::default();
        let mut found: Vec<Value> = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            let whole = splitter.take(piece).unwrap();
            found.extend(whole.iter().map(|entry| serde_json::from_slice::<Value>(entry).unwrap()));
        }
        splitter.end().unwrap();
        assert_eq!(found, entries, "in pieces of {size}");
    }
    let mut endless = Splitter::default();
    let taken = endless.take(b"[{\"a\":\"").and_then(|_| endless.take(&vec![b'a'; MUCH + 1]));
    assert!(taken.unwrap_err().to_string().contains("has more than"));
}
