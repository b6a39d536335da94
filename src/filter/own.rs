//! What the filter knows of containers and images. Both are looked at once: an id never means another one later, and
//! neither labels nor mounts of a container can be changed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use super::{
    Rules,
    call::{Id, Name},
};
use crate::sandbox::LABEL_HOME;
use quickcmd_init::proto;

/// Containers and images that are remembered; beyond, all are forgotten and looked at again.
const KEPT: usize = 65_536;

/// Ids that have been found to be the agent's, and images that it may use.
#[derive(Debug, Default)]
pub(super) struct Known {
    containers: Mutex<HashSet<Id>>,
    /// By their id; the reference they were found under.
    images: Mutex<HashMap<String, String>>,
}

impl Known {
    pub(super) fn add(&self, id: Id) {
        let mut all = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(id);
    }

    pub(super) fn has(&self, id: &Id) -> bool {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    pub(super) fn forget(&self, id: &Id) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(super) fn add_image(&self, id: &str, reference: &str) {
        let mut all = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(id.to_owned(), reference.to_owned());
    }

    pub(super) fn has_image(&self, id: &str) -> bool {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }
}

/// The id of a container that is the agent's, by Docker's answer to an inspection; `None` for any other.
pub(super) fn agents(rules: &Rules, inspected: &Value) -> Option<Id> {
    let id = Id::parse(inspected["Id"].as_str()?)?;
    is_own(rules, &inspected["Name"], &inspected["Config"]["Labels"], &inspected["Mounts"]).then_some(id)
}

/// Whether an entry of a list of Docker's is about a container of the agent's.
pub(super) fn listed(rules: &Rules, entry: &Value) -> bool {
    entry["Names"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|name| is_own(rules, name, &entry["Labels"], &entry["Mounts"]))
}

/// Labels alone would not do: an image can bring them, and another agent has them. Name, label and mount together can't
/// be had by accident.
fn is_own(rules: &Rules, name: &Value, labels: &Value, mounts: &Value) -> bool {
    let Some(name) = name.as_str().and_then(|name| Name::parse(name.trim_start_matches('/'))) else {
        return false;
    };
    let labelled = labels[LABEL_HOME] == name.home();
    let folder = format!("{}/{}", rules.sandboxes, name.as_str());
    let mounted = mounts.as_array().into_iter().flatten().any(|mount| {
        mount["Type"] == "bind" && mount["Destination"] == proto::MOUNT && mount["Source"] == folder.as_str()
    });
    labelled && mounted
}
