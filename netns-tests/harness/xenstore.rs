//! A small xenstore server: enough of it for one who reads and writes, with the ill manners that a test asks for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

const READ: u32 = 2;
const WRITE: u32 = 11;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// As xenstored, a watch event before each answer.
    Good,
    /// It takes requests and never answers.
    Silent,
    /// It answers a read with half of a message and closes; writes it takes.
    CutShort,
    /// It answers a read under another request's number; writes it takes.
    WrongId,
    /// Nothing may be written.
    ReadOnly,
}

/// A server on a socket of its own.
pub struct Xenstore {
    folder: PathBuf,
    store: Arc<Mutex<Store>>,
}

#[derive(Default)]
struct Store {
    values: BTreeMap<String, Vec<u8>>,
    written: Vec<(String, Vec<u8>)>,
}

impl Xenstore {
    /// Starts one that holds these values; it ends with the process.
    pub fn new(manners: Manners, values: &[(&str, &str)]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // A socket's path has 107 bytes, so it cannot be below target/.
        let folder = std::env::temp_dir().join(format!("snf-network-xenstore-{}-{number}", process::id()));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let values = values.iter().map(|(path, value)| ((*path).to_owned(), value.as_bytes().to_vec())).collect();
        let server = Self { folder, store: Arc::new(Mutex::new(Store { values, written: Vec::new() })) };
        let listener = UnixListener::bind(server.socket())?;
        let store = Arc::clone(&server.store);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let store = Arc::clone(&store);
                thread::spawn(move || serve(stream, manners, &store));
            }
        });
        Ok(server)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// XENSTORED_RUNDIR.
    pub fn rundir(&self) -> String {
        self.folder.display().to_string()
    }

    /// What was written since the last look, in that order.
    pub fn written(&self) -> Vec<(String, String)> {
        let text = |(path, value): (String, Vec<u8>)| (path, String::from_utf8_lossy(&value).into_owned());
        locked(&self.store).written.drain(..).map(text).collect()
    }
}

impl Drop for Xenstore {
    fn drop(&mut self) {
        // A folder left behind in /tmp harms nobody.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

fn locked(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let words = [kind, request, 0, u32::try_from(payload.len()).unwrap_or(u32::MAX)];
    [words.map(u32::to_ne_bytes).concat(), payload.to_vec()].concat()
}

fn serve(mut stream: UnixStream, manners: Manners, store: &Mutex<Store>) -> io::Result<()> {
    loop {
        let mut header = [[0; 4]; 4];
        for word in &mut header {
            stream.read_exact(word)?;
        }
        let [kind, request, _, length] = header.map(u32::from_ne_bytes);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        let nul = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
        let path = String::from_utf8_lossy(&payload[..nul]).into_owned();
        let value = payload.get(nul + 1..).unwrap_or_default().to_vec();
        let mut answer = match kind {
            READ => match locked(store).values.get(&path) {
                Some(value) => message(READ, request, value),
                None => message(ERROR, request, b"ENOENT\0"),
            },
            WRITE if manners == Manners::ReadOnly => message(ERROR, request, b"EACCES\0"),
            WRITE => {
                let mut store = locked(store);
                store.values.insert(path.clone(), value.clone());
                store.written.push((path, value));
                message(WRITE, request, b"OK\0")
            }
            _ => message(ERROR, request, b"ENOSYS\0"),
        };
        match manners {
            Manners::Silent => continue,
            Manners::CutShort if kind == READ => {
                answer.truncate(answer.len() - 1);
                return stream.write_all(&answer);
            }
            Manners::WrongId if kind == READ => answer[4] ^= 0xff,
            _ => stream.write_all(&message(WATCH_EVENT, 0, b"backend/vif\0token\0"))?,
        }
        stream.write_all(&answer)?;
    }
}
