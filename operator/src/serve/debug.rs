//! The debug API: what this replica knows and what it made of it, in JSON. On the loopback address only, so that it takes the
//! right to `kubectl port-forward` or `exec` to read it.

use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use weft_config::Resource;

use super::http::{Answer, answer, text};
use crate::annotations::{Problem, Settings, carried};
use crate::index::Index;
use crate::policies;
use crate::publish::Publisher;
use crate::smi::{Finding, Verdict};

/// What the debug API answers from.
pub struct Debug {
    /// The index.
    pub index: Index,
    /// The configuration.
    pub publisher: Publisher,
}

/// One Service in the mesh.
#[derive(Serialize)]
struct ServiceView {
    namespace: String,
    name: String,
    /// `http`, `tcp` or `udp`.
    traffic_type: &'static str,
    /// Name of its shadow Service; absent while there is none.
    shadow: Option<String>,
    ports: Vec<PortView>,
    /// What was asked for and could not be understood.
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct PortView {
    port: u16,
    /// Absent while none is allocated.
    listen_port: Option<u16>,
}

/// One object of the Service Mesh Interface.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SmiView {
    kind: &'static str,
    /// In which it was read.
    api_version: String,
    namespace: String,
    name: String,
    verdict: Verdict,
    /// What its author should know.
    notes: Vec<String>,
}

impl Debug {
    /// Answers one request.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Answer> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        }
        match request.uri().path() {
            "/debug/services" => json(&self.services()),
            "/debug/configuration" => json(&self.configuration()),
            "/debug/smi" => json(&self.smi()),
            _ => text(StatusCode::NOT_FOUND, "/debug/services /debug/configuration /debug/smi\n"),
        }
    }

    fn services(&self) -> Vec<ServiceView> {
        let problems = self.publisher.problems();
        let defaults = self.index.defaults();
        let view = |id| {
            let service = self.index.meshed(&id)?;
            let shadow = self.index.shadow(&id);
            let listen_port = |port: u16| {
                let recorded = shadow.as_ref()?.ports.iter().find(|(number, _)| *number == port);
                recorded.map(|(_, listen_port)| *listen_port)
            };
            Some(ServiceView {
                namespace: id.namespace.to_string(),
                name: id.name.to_string(),
                traffic_type: Settings::of(&service, &defaults).0.traffic(&service).as_str(),
                ports: carried(&service, &defaults)
                    .map(|port| PortView { port: port.port, listen_port: listen_port(port.port) })
                    .collect(),
                shadow: shadow.map(|shadow| shadow.name.to_string()),
                problems: problems.get(&id).cloned().unwrap_or_default(),
            })
        };
        self.index.all_meshed().into_iter().filter_map(view).collect()
    }

    /// Every object of the Service Mesh Interface in the namespaces of the mesh, and what became of it.
    fn smi(&self) -> Vec<SmiView> {
        let view = |finding: Finding| SmiView {
            kind: finding.about.kind,
            api_version: finding.about.api_version.to_string(),
            namespace: finding.about.name.namespace.to_string(),
            name: finding.about.name.name.to_string(),
            verdict: finding.verdict,
            notes: finding.notes,
        };
        policies::findings(&self.index).into_iter().map(view).collect()
    }

    /// Every resource by its name, as its Rust form shows it: for people, not for programs.
    fn configuration(&self) -> Vec<(String, String)> {
        let show = |resource: &Resource| match resource {
            Resource::Service(service) => format!("{service:?}"),
            Resource::Endpoints(_, endpoints) => format!("{endpoints:?}"),
            Resource::Identity(_, identity) => format!("{identity:?}"),
            Resource::Access(_, access) => format!("{access:?}"),
        };
        let all = self.publisher.configuration();
        all.iter().map(|entry| (entry.resource.key().to_string(), show(&entry.resource))).collect()
    }
}

fn json(value: &impl Serialize) -> Response<Answer> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => answer(StatusCode::OK, "application/json", json + "\n"),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be encoded\n"),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::policies::tests::enforced;

    #[tokio::test]
    async fn every_policy_is_listed_with_what_became_of_it() {
        let debug = Debug { index: enforced(), publisher: Publisher::default() };
        let answer = debug.answer(&Request::get("/debug/smi").body(()).unwrap());
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let all: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let second = all.iter().find(|object| object["name"] == "second").unwrap();
        let note = "Service shop/web is split by TrafficSplit shop/canary already, which is older.";
        assert_eq!(
            *second,
            json!({"kind": "TrafficSplit", "apiVersion": "split.smi-spec.io/v1alpha4", "namespace": "shop",
                "name": "second", "verdict": "Rejected", "notes": [note]})
        );
        let unknown = debug.answer(&Request::get("/elsewhere").body(()).unwrap());
        let body = unknown.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "/debug/services /debug/configuration /debug/smi\n");
    }
}
