//! `ratelimit-average` and `ratelimit-burst`: how many requests each caller may send. Both or none, as in Traefik Mesh.

use weft_config::RateLimit;

use super::{Annotation, Row, number};

const AVERAGE: &str = "ratelimit-average";
const BURST: &str = "ratelimit-burst";

pub(super) const ROW: Row = Row {
    annotations: &[
        Annotation {
            key: AVERAGE,
            allowed: "1 to 1000000, with `ratelimit-burst`",
            default: "no limit",
            meaning: "Requests a second that each pod may send, counted by each node's proxy for itself; more get 429.",
        },
        Annotation {
            key: BURST,
            allowed: "1 to 1000000, with `ratelimit-average`",
            default: "no limit",
            meaning: "Requests that each pod may send at once.",
        },
    ],
    read: |values, settings, problems| {
        let parse = |text: &str| number::parse(text, 1, 1_000_000, "the mesh's default is used");
        let (average, burst) = (values.get(AVERAGE), values.get(BURST));
        match (average, burst) {
            (Some(_), Some(_)) => {
                let average = values.read(AVERAGE, problems, parse);
                let burst = values.read(BURST, problems, parse);
                if let (Some(average), Some(burst)) = (average, burst) {
                    settings.rate_limit = Some(RateLimit { average, burst });
                }
            }
            (Some(one), None) | (None, Some(one)) => problems.push(one.problem(
                "there must be both ratelimit-average and ratelimit-burst; the mesh's default is used",
            )),
            (None, None) => {}
        }
    },
};
