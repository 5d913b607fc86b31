//! The file a proxy keeps its last-known-good configuration in.
//!
//! Written beside and renamed, so a reader sees the old file or the new one; guarded by a checksum, so a damaged file
//! is noticed and not used. The file's time of modification says when its content was last in step with an operator: it is
//! moved on ([`confirm`]) for as long as that is so.

use std::fs;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::set::{Entry, ResourceSet};
use crate::wire::{self, DecodeError, v1};

/// Number of the field of [`v1::Snapshot`] that holds its resources.
const RESOURCES: u32 = 1;

/// Why a snapshot file could not be read or written. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused.
    #[error("snapshot {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The bytes are not a snapshot.
    #[error("snapshot {path} is damaged: {source}")]
    Encoding {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// A resource in it is not valid.
    #[error("snapshot {path} is damaged: {source}")]
    Resource {
        /// The file.
        path: PathBuf,
        /// What is wrong with the resource.
        source: DecodeError,
    },
    /// The checksum does not fit the content.
    #[error("snapshot {path} is damaged: its checksum does not match its content")]
    Checksum {
        /// The file.
        path: PathBuf,
    },
}

/// Writes `set` to `path` as a whole or not at all.
///
/// The file is not synced to disk: it must survive the end of the process, not of the node, and a damaged one is
/// noticed by its checksum.
pub fn write(path: &Path, set: &ResourceSet) -> Result<(), SnapshotError> {
    write_encoded(path, set.iter().map(wire::to_bytes))
}

/// The same from resources that are encoded, each as a [`v1::Resource`]. Takes no more memory than the largest of them.
pub fn write_encoded(
    path: &Path,
    resources: impl Iterator<Item = impl AsRef<[u8]>>,
) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
    let beside = path.with_extension("new");
    let file = fs::File::create(&beside).map_err(failed)?;
    fill(file, resources).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

/// Says of what is in the file that an operator still says the same.
pub fn confirm(path: &Path) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
    let file = fs::File::options().write(true).open(path).map_err(failed)?;
    file.set_modified(SystemTime::now()).map_err(failed)
}

/// How long ago the content of the file was in step with an operator. `None`: that cannot be told, since there is no file or
/// the clock was set back since.
pub fn age(path: &Path) -> Option<Duration> {
    let confirmed = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    match SystemTime::now().duration_since(confirmed) {
        Ok(age) => Some(age),
        // Clocks are corrected by moments all the time.
        Err(ahead) if ahead.duration() <= SLACK => Some(Duration::ZERO),
        Err(_) => None,
    }
}

/// By how much a file may seem to be from the future.
const SLACK: Duration = Duration::from_secs(2);

/// A [`v1::Snapshot`], field by field, behind its checksum.
fn fill(file: fs::File, resources: impl Iterator<Item = impl AsRef<[u8]>>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 16, file);
    let mut checksum = Xxh3::new();
    file.write_all(&[0; 8])?;
    let mut head = Vec::new();
    for resource in resources {
        let resource = resource.as_ref();
        head.clear();
        encode_key(RESOURCES, WireType::LengthDelimited, &mut head);
        encode_varint(resource.len() as u64, &mut head);
        for bytes in [&head[..], resource] {
            checksum.update(bytes);
            file.write_all(bytes)?;
        }
    }
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&checksum.digest().to_be_bytes())?;
    file.flush()
}

/// Reads the set back; `None` when there is no file yet.
pub fn read(path: &Path) -> Result<Option<ResourceSet>, SnapshotError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SnapshotError::Io { path: path.to_owned(), source }),
    };
    let content = bytes
        .split_first_chunk::<8>()
        .filter(|(checksum, content)| u64::from_be_bytes(**checksum) == xxh3_64(content))
        .map(|(_, content)| content)
        .ok_or_else(|| SnapshotError::Checksum { path: path.to_owned() })?;
    let snapshot = v1::Snapshot::decode(content)
        .map_err(|source| SnapshotError::Encoding { path: path.to_owned(), source })?;
    let set = snapshot
        .resources
        .iter()
        .map(Entry::try_from)
        .collect::<Result<_, _>>()
        .map_err(|source| SnapshotError::Resource { path: path.to_owned(), source })?;
    Ok(Some(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Restriction;
    use crate::model::{Endpoints, EndpointsId, Port, Resource, Service, ServiceId};
    use crate::policy::{Timeouts, Traffic};
    use crate::routes::{Split, SplitBackend};

    fn set() -> ResourceSet {
        let id = ServiceId::new("shop", "cart");
        let endpoints = EndpointsId { service: id.clone(), port: 80 };
        let port = Port {
            port: 80,
            name: "http".into(),
            listen_port: 10000,
            traffic: Traffic::default(),
            timeouts: Timeouts::default(),
            endpoints: endpoints.clone(),
            split: Some(Split {
                matches: Vec::new(),
                backends: vec![SplitBackend {
                    endpoints: endpoints.clone(),
                    weight: 1,
                    split: Some(Split::default()),
                }],
            }),
            restriction: Some(Restriction { denied_status: 404 }),
        };
        let ready = vec![([10, 0, 0, 1], 8080).into(), ([0, 0, 0, 0, 0, 0, 0, 1], 8080).into()];
        let list = Endpoints { ready, draining: vec![([10, 0, 0, 2], 8081).into()], unready: 3 };
        [Resource::Service(Service { id, ports: vec![port] }), Resource::Endpoints(endpoints, list)]
            .into_iter()
            .map(Entry::new)
            .collect()
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("weft-snapshot-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let path = directory("round").join("config");
        assert!(read(&path).unwrap().is_none(), "no file yet");
        write(&path, &set()).unwrap();
        let back = read(&path).unwrap().unwrap();
        assert!(back.iter().eq(set().iter()));
        assert_eq!(back.digest(), set().digest());
    }

    #[test]
    fn its_age_counts_from_when_it_was_last_confirmed() {
        let path = directory("age").join("config");
        assert_eq!(age(&path), None, "no file yet");
        assert!(confirm(&path).is_err());
        write(&path, &set()).unwrap();
        let before = fs::read(&path).unwrap();
        let touch = |time| fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        touch(SystemTime::now() - Duration::from_secs(600));
        assert!(age(&path).unwrap() >= Duration::from_secs(600));
        confirm(&path).unwrap();
        assert!(age(&path).unwrap() < Duration::from_secs(60));
        assert_eq!(fs::read(&path).unwrap(), before);
        touch(SystemTime::now() + Duration::from_secs(600));
        assert_eq!(age(&path), None, "the clock was set back: nobody knows how old it is");
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let path = directory("damage").join("config");
        write(&path, &set()).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            let error = read(&path).expect_err("damage must be noticed").to_string();
            assert!(error.contains("config"), "{error}");
        }
    }
}
