//! The objects of the Service Mesh Interface and what they mean together. Pure: [`Objects`] holds what is in the cluster,
//! [`split`] and [`access`] say what becomes of it, and each has a [`Finding`] for every object. How the objects get here is in
//! [`crate::index`], how findings reach people in [`crate::reconcile`].

pub mod access;
pub mod forest;
pub mod objects;
pub mod routes;
pub mod split;

#[cfg(test)]
mod never_wider;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use weft_config::ServiceId;
use weft_crds::smi::{Kind, Unreadable};

pub use objects::{All, Meta, Objects};

/// Namespace and name of an object.
pub type Name = ServiceId;

/// Whether the objects of a namespace count: those of namespaces that are not in the mesh are none of our business.
pub type InMesh<'a> = dyn Fn(&str) -> bool + 'a;

/// An object as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<T> {
    /// Namespace and name.
    pub name: Name,
    /// The object's uid.
    pub uid: Arc<str>,
    /// `apiVersion` it came in.
    pub api_version: Arc<str>,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
    /// What it says, or why that cannot be told.
    pub read: Result<T, Unreadable>,
}

/// Names one object for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Its kind.
    pub kind: &'static str,
    /// Its `apiVersion`.
    pub api_version: Arc<str>,
    /// Namespace and name.
    pub name: Name,
    /// Its uid.
    pub uid: Arc<str>,
}

/// Shown as `TrafficSplit shop/web`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Verdict {
    /// All of it is in force.
    Accepted,
    /// A part of it is not.
    PartlyApplied,
    /// Nothing of it is.
    Rejected,
}

/// What became of one object, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object.
    pub about: Subject,
    /// What became of it.
    pub verdict: Verdict,
    /// What its author should know; a sentence each.
    pub notes: Vec<String>,
}

impl<T> Object<T> {
    fn subject(&self, kind: Kind) -> Subject {
        Subject {
            kind: kind.kind,
            api_version: Arc::clone(&self.api_version),
            name: self.name.clone(),
            uid: Arc::clone(&self.uid),
        }
    }

    /// A finding: nothing of it is in force without `some`; all of it when there are no notes.
    fn finding(&self, kind: Kind, some: bool, notes: Vec<String>) -> Finding {
        let verdict = match (some, notes.is_empty()) {
            (false, _) => Verdict::Rejected,
            (true, true) => Verdict::Accepted,
            (true, false) => Verdict::PartlyApplied,
        };
        Finding { about: self.subject(kind), verdict, notes }
    }

    fn unreadable(&self, kind: Kind, error: &Unreadable) -> Finding {
        self.finding(kind, false, vec![format!("It cannot be read: {error}.")])
    }
}

/// What becomes of every object that counts. `enforced`: whether access control is.
pub fn review(
    objects: &Objects,
    in_mesh: &InMesh<'_>,
    ports: &split::Ports<'_>,
    has_port: &split::HasPort<'_>,
    enforced: bool,
) -> Vec<Finding> {
    let mut all = access::review(objects, enforced);
    all.extend(routes::review(objects));
    all.extend(split::review(objects, ports, has_port));
    all.retain(|finding| in_mesh(&finding.about.name.namespace));
    all
}
