//! A disk that forgets: from the recorded order of changes and syncs (`record.c`), what is in a folder after a power
//! cut at any moment of it.
//!
//! What a sync has brought to the disk is there, and nothing else is sure: of the changes since then none, all, the
//! first ones, or any of them may be there, in pieces of a sector. A name is sure when its folder was synced after it
//! was given; of a file alone a sync brings the bytes. That is harsher than any file system that is in use.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::rng::Rng;

/// Written as a whole or not at all.
const SECTOR: u64 = 512;
/// Bytes of a record before path and data.
const HEAD: usize = 17;

/// One line of the record: what, a number, a path, more.
#[derive(Debug, Clone)]
pub struct Line {
    pub what: What,
    number: u64,
    pub path: PathBuf,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Create,
    Write,
    Truncate,
    Rename,
    Unlink,
    MakeFolder,
    RemoveFolder,
    Link,
    SyncBegins,
    SyncEnds,
    /// A client has the answer that this job is accepted (the path is its id).
    Accepted,
    /// A job has been seen to run.
    Begun,
    /// A client has been told of this job's end.
    Ended,
}

impl What {
    const ALL: [What; 13] = [
        What::Create,
        What::Write,
        What::Truncate,
        What::Rename,
        What::Unlink,
        What::MakeFolder,
        What::RemoveFolder,
        What::Link,
        What::SyncBegins,
        What::SyncEnds,
        What::Accepted,
        What::Begun,
        What::Ended,
    ];

    fn byte(self) -> u8 {
        let at = What::ALL.iter().position(|what| *what == self).expect("all are there");
        u8::try_from(at + 1).expect("a few")
    }
}

impl Line {
    /// As the recorder writes it, for those that only a test can know.
    pub fn mark(what: What, id: &str) -> Vec<u8> {
        let mut line = vec![what.byte()];
        line.extend(0_u64.to_ne_bytes());
        line.extend(u32::try_from(id.len()).expect("short").to_ne_bytes());
        line.extend(0_u32.to_ne_bytes());
        line.extend(id.as_bytes());
        line
    }

    /// All of a record; one that a kill cut off at the end is left out.
    pub fn all(mut bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some((head, rest)) = bytes.split_at_checked(HEAD) {
            let length = |at: usize| {
                let bytes = head[at..at + 4].try_into().expect("4 bytes");
                usize::try_from(u32::from_ne_bytes(bytes)).expect("64 bits")
            };
            let (path, data) = (length(9), length(13));
            let Some((body, more)) = rest.split_at_checked(path + data) else { break };
            let (path, data) = body.split_at(path);
            lines.push(Line {
                what: What::ALL[usize::from(head[0]) - 1],
                number: u64::from_ne_bytes(head[1..9].try_into().expect("8 bytes")),
                path: PathBuf::from(str::from_utf8(path).expect("paths of ours are text")),
                data: data.to_vec(),
            });
            bytes = more;
        }
        lines
    }
}

/// What is left of the changes that no sync had brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// As after a kill.
    Everything,
    /// Of each file the first ones, the last of them torn.
    First,
    /// Any sector of any.
    Any,
}

#[derive(Debug)]
enum Change {
    Write { at: u64, data: Vec<u8> },
    Length(u64),
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Since the last sync, each with its place in the record.
    pending: Vec<(u64, Change)>,
    /// Others append to it, too: only its length is known, and its bytes are in the real file.
    appended: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Node {
    File(usize),
    Folder,
}

/// Names that are given, or taken, together.
type Step = Vec<(String, Option<Node>)>;

#[derive(Debug, Default)]
struct Folder {
    durable: BTreeMap<String, Node>,
    /// Since the last sync.
    pending: Vec<(u64, Step)>,
}

enum Synced {
    File(usize, u64),
    Folder(PathBuf),
}

/// The disk below one folder, which itself stays.
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    folders: BTreeMap<PathBuf, Folder>,
    /// Which file a path leads to now.
    now: BTreeMap<PathBuf, usize>,
    syncs: BTreeMap<u64, (u64, Synced)>,
    /// Lines so far.
    at: u64,
}

impl Disk {
    /// With what is in that part of the folder now, all of it on the disk.
    pub fn new(root: &Path, part: &str) -> Disk {
        let mut disk = Disk {
            root: root.to_owned(),
            files: Vec::new(),
            folders: [(root.to_owned(), Folder::default())].into(),
            now: BTreeMap::new(),
            syncs: BTreeMap::new(),
            at: 0,
        };
        if root.join(part).is_dir() {
            disk.take(&root.join(part));
        }
        disk
    }

    fn take(&mut self, folder: &Path) {
        self.folder_of(folder).durable.insert(name(folder), Node::Folder);
        self.folders.insert(folder.to_owned(), Folder::default());
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
            if kind.is_dir() {
                self.take(&path);
            } else if kind.is_file() {
                let id = self.new_file(&path);
                let durable = fs::read(&path).expect("a file");
                let file = &mut self.files[id];
                file.appended = file.appended.map(|_| durable.len() as u64);
                file.durable = durable;
                self.folder_of(&path).durable.insert(name(&path), Node::File(id));
            }
        }
    }

    fn new_file(&mut self, path: &Path) -> usize {
        let appended = path.extension().is_some_and(|extension| extension == "spool").then_some(0);
        self.files.push(File { appended, ..File::default() });
        self.now.insert(path.to_owned(), self.files.len() - 1);
        self.files.len() - 1
    }

    fn folder_of(&mut self, path: &Path) -> &mut Folder {
        let folder = path.parent().expect("it is below the root");
        self.folders.entry(folder.to_owned()).or_default()
    }

    /// Goes on by one line.
    pub fn apply(&mut self, line: &Line) {
        self.at += 1;
        let Line { what, number, path, data } = line;
        let at = self.at;
        match what {
            What::Accepted | What::Begun | What::Ended => {}
            What::Create => {
                let id = self.new_file(path);
                self.give(path, Some(Node::File(id)));
            }
            What::Write => self.change(path, Change::Write { at: *number, data: data.clone() }),
            What::Truncate => self.change(path, Change::Length(*number)),
            What::MakeFolder => {
                self.folders.insert(path.clone(), Folder::default());
                self.give(path, Some(Node::Folder));
            }
            What::Unlink | What::RemoveFolder => {
                self.now.remove(path);
                self.give(path, None);
            }
            What::Rename | What::Link => {
                let to = PathBuf::from(str::from_utf8(data).expect("text"));
                // Sockets, and files that were made elsewhere, are not known.
                let Some(id) = self.now.get(path).copied() else { return };
                let mut step = vec![(name(&to), Some(Node::File(id)))];
                self.now.insert(to.clone(), id);
                if *what == What::Rename {
                    self.now.remove(path);
                    if path.parent() == to.parent() {
                        step.push((name(path), None));
                    } else {
                        self.give(path, None);
                    }
                }
                self.folder_of(&to).pending.push((at, step));
            }
            What::SyncBegins => {
                let length = u64::from_ne_bytes(data.as_slice().try_into().expect("a length"));
                let synced = match self.now.get(path) {
                    Some(id) => Synced::File(*id, length),
                    None => Synced::Folder(path.clone()),
                };
                self.syncs.insert(*number, (at, synced));
            }
            What::SyncEnds => self.synced(*number),
        }
    }

    fn give(&mut self, path: &Path, node: Option<Node>) {
        let at = self.at;
        self.folder_of(path).pending.push((at, vec![(name(path), node)]));
    }

    fn change(&mut self, path: &Path, change: Change) {
        let Some(id) = self.now.get(path) else { panic!("{} is written and was never made", path.display()) };
        self.files[*id].pending.push((self.at, change));
    }

    fn synced(&mut self, number: u64) {
        let (began, synced) = self.syncs.remove(&number).expect("it has begun");
        match synced {
            Synced::File(id, length) => {
                let file = &mut self.files[id];
                let covered = file.pending.partition_point(|(at, _)| *at < began);
                for (_, change) in file.pending.drain(..covered) {
                    change.make(&mut file.durable);
                }
                if let Some(known) = &mut file.appended {
                    *known = length.max(*known);
                }
            }
            Synced::Folder(path) => {
                let folder = self.folders.entry(path).or_default();
                let covered = folder.pending.partition_point(|(at, _)| *at < began);
                for (_, step) in folder.pending.drain(..covered) {
                    rename(&mut folder.durable, &step);
                }
            }
        }
    }

    /// Writes what is there after a cut at this moment, below that folder.
    pub fn cut(&self, left: Left, rng: &mut Rng, to: &Path) {
        self.cut_folder(&self.root, left, rng, to);
    }

    fn cut_folder(&self, path: &Path, left: Left, rng: &mut Rng, to: &Path) {
        let Some(folder) = self.folders.get(path) else { return };
        let mut names = folder.durable.clone();
        for (_, step) in &folder.pending[..some(left, folder.pending.len(), rng)] {
            rename(&mut names, step);
        }
        for (name, node) in names {
            let (from, to) = (path.join(&name), to.join(&name));
            match node {
                Node::Folder => {
                    DirBuilder::new().mode(0o700).create(&to).expect("a folder");
                    self.cut_folder(&from, left, rng, &to);
                }
                Node::File(id) => {
                    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to);
                    let file = file.as_mut().expect("a new file");
                    file.write_all(&self.files[id].after(left, rng, &from)).expect("written");
                }
            }
        }
    }
}

impl File {
    fn after(&self, left: Left, rng: &mut Rng, real: &Path) -> Vec<u8> {
        if let Some(length) = self.appended {
            let mut bytes = fs::read(real).unwrap_or_default();
            let sure = usize::try_from(length).expect("64 bits").min(bytes.len());
            // In order: what others append is written in order, too.
            let more = some(left, bytes.len() - sure, rng);
            bytes.truncate(sure + more);
            return bytes;
        }
        let mut bytes = self.durable.clone();
        let count = if left == Left::Any { self.pending.len() } else { some(left, self.pending.len(), rng) };
        for (n, (_, change)) in self.pending[..count].iter().enumerate() {
            let torn = left == Left::Any || left == Left::First && n + 1 == count;
            match change {
                Change::Write { at, data } if torn => {
                    for (at, sector) in sectors(*at, data) {
                        if rng.percent(50) {
                            overwrite(&mut bytes, at, sector);
                        }
                    }
                }
                Change::Length(_) if torn && rng.percent(50) => {}
                change => change.make(&mut bytes),
            }
        }
        bytes
    }
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write { at, data } => overwrite(bytes, *at, data),
            Change::Length(length) => bytes.resize(usize::try_from(*length).expect("64 bits"), 0),
        }
    }
}

/// How many of so many are left.
fn some(left: Left, of: usize, rng: &mut Rng) -> usize {
    match left {
        Left::Nothing => 0,
        Left::Everything => of,
        Left::First | Left::Any => usize::try_from(rng.range(0, of as u64 + 1)).expect("64 bits"),
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: u64, data: &[u8]) {
    let at = usize::try_from(at).expect("64 bits");
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// The pieces of a write that a disk writes one by one.
fn sectors(at: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = data;
    let mut next = at;
    std::iter::from_fn(move || {
        let length = usize::try_from(SECTOR - next % SECTOR).expect("small").min(rest.len());
        let (sector, more) = rest.split_at(length);
        let at = next;
        next += length as u64;
        rest = more;
        (length > 0).then_some((at, sector))
    })
}

fn rename(names: &mut BTreeMap<String, Node>, step: &[(String, Option<Node>)]) {
    for (name, node) in step {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_str().expect("text").to_owned()
}
