//! Examples, each in a file of `examples/`: the first document says what must come of it, the others are objects of the Service
//! Mesh Interface as its specification, or Traefik Mesh's documentation, writes them, with the names of our cast.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use weft_tests::Result;
use weft_tests::smi;
use weft_tests::stage::Stage;
use weft_tests::traffic::get;
use weft_tests::wait::{self, Seen, seconds};

/// One example.
#[derive(Clone, Copy)]
pub(crate) struct Example {
    /// Its file.
    pub(crate) file: &'static str,
    /// What is in it.
    pub(crate) yaml: &'static str,
}

/// What must come of the objects.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    /// In a sentence.
    example: String,
    /// What is asked, and answered.
    requests: Vec<Ask>,
    /// What becomes of an object, by its name, unless all of it is in force.
    #[serde(default)]
    verdicts: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// The caller, unless it is the first.
    r#as: Option<String>,
    /// The Service, with its port unless that is 80.
    to: String,
    #[serde(default = "get_method")]
    method: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Its answer's status.
    #[serde(default = "ok")]
    status: u16,
    /// Who answers: each of these, in any of so many requests.
    #[serde(default)]
    by: Vec<String>,
}

fn get_method() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

fn ok() -> u16 {
    200
}

/// Requests that are made where several may answer.
const SEVERAL: &str = "60";

impl Ask {
    /// What is otherwise than it must be; nothing when all is well.
    async fn differs(&self, stage: &Stage) -> Result<Option<String>> {
        let caller = match &self.r#as {
            Some(name) => stage.caller(name)?,
            None => stage.client(),
        };
        let (service, port) = self.to.split_once(':').unwrap_or((&self.to, "80"));
        let url = format!("http://{}:{port}{}", stage.host(service), self.path);
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let count = if self.by.len() > 1 { SEVERAL } else { "1" };
        let mut args = vec!["--method", &*self.method, "-n", count];
        args.extend(headers.iter().flat_map(|header| ["--header", header]));
        let answers = get(&stage.cluster, caller, &url, &args).await?;
        let mut by: Vec<_> = answers.iter().map(|answer| answer.told("app").to_owned()).collect();
        by.sort();
        by.dedup();
        let as_meant = answers.iter().all(|answer| answer.status == Some(self.status))
            && (self.by.is_empty() || self.by == by);
        Ok((!as_meant).then(|| format!("{self:?}: {by:?}: {:?}", answers.last())))
    }
}

impl Example {
    /// Applies it, waits until everything is as the first document says, and takes it away.
    pub(crate) async fn holds(&self, stage: &Stage) -> Result {
        let mut documents = smi::documents(self.yaml).map_err(|error| format!("{}: {error}", self.file))?;
        for document in &mut documents {
            smi::rename(document, "NAMESPACE", &*stage.ns);
        }
        let mut documents = documents.into_iter();
        let outcome: Outcome = serde_json::from_value(documents.next().ok_or("an empty file")?)
            .map_err(|error| format!("{}: {error}", self.file))?;
        eprintln!("  {}: {}", self.file, outcome.example);
        let objects: Vec<Value> = documents.collect();
        assert!(!outcome.requests.is_empty() && !objects.is_empty(), "{} proves nothing", self.file);
        stage.apply(&objects).await.map_err(|error| format!("{}: {error}", self.file))?;
        wait::until(&format!("{}: {}", self.file, outcome.example), seconds(30), async || {
            for ask in &outcome.requests {
                if let Some(state) = ask.differs(stage).await? {
                    return Ok(Seen::NotYet(state));
                }
            }
            Ok(Seen::Done(()))
        })
        .await?;
        for object in &objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let verdict = outcome.verdicts.get(name).map_or(smi::ACCEPTED, String::as_str);
            smi::verdict(&stage.cluster, &stage.ns, object, verdict)
                .await
                .map_err(|error| format!("{}: {error}", self.file))?;
        }
        for object in &objects {
            stage.delete(object).await?;
        }
        Ok(())
    }
}

/// The examples of these files.
macro_rules! examples {
    ($($file:literal),* $(,)?) => {
        [$($crate::examples::Example { file: $file, yaml: include_str!(concat!("examples/", $file)) }),*]
    };
}
pub(crate) use examples;

#[test]
fn every_example_can_be_read_and_is_used() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/smi/examples")).unwrap();
    let used = [crate::access_examples::all(), crate::split_examples::all()].concat();
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        let example = used.iter().find(|example| example.file == name);
        let yaml = example.unwrap_or_else(|| panic!("{name} is not used")).yaml;
        let mut documents = smi::documents(yaml).unwrap().into_iter();
        let outcome: Outcome = serde_json::from_value(documents.next().unwrap()).unwrap();
        assert!(!outcome.requests.is_empty(), "{name}");
        for object in documents {
            let version = object["apiVersion"].as_str().unwrap_or_default();
            assert!(version.contains(".smi-spec.io/v1alpha"), "{name}: {object}");
        }
    }
}
