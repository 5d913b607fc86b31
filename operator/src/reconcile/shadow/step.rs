//! What is to be written for a Service, and the writing.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use tokio::time::Instant;
use weft_config::ServiceId;

use super::ShadowError;
use crate::context::Context;
use crate::index::facts::ShadowFacts;
use crate::ports::NoPort;

/// What is to be written for a Service.
pub(super) enum Step {
    /// Its shadow as it should be, which does not seem to be there; boxed, since most rounds write nothing.
    Create(Box<Service>),
    /// Its shadow as it should be, over the one there is.
    Change(Box<Service>),
    /// The shadow of this name and uid goes.
    Delete(Arc<str>, Arc<str>),
    /// It is as it should be.
    Nothing,
}

impl Step {
    async fn take(self, ctx: &Context, id: &ServiceId) -> Result<(), ShadowError> {
        match self {
            Self::Create(desired) => {
                // Somebody's Service of that name is looked at first: the API server refuses only what differs from it.
                let taken = ctx.index.service(&ServiceId::new(&*ctx.namespace, desired.name_any().as_str()));
                let shadow = match taken {
                    Some(_) => ctx.writer.apply(&*desired).await?,
                    None => ctx.writer.apply_new(&*desired).await?,
                };
                written(id, &shadow);
            }
            Self::Change(desired) => written(id, &ctx.writer.apply_unseen(&*desired).await?),
            Self::Delete(shadow, uid) => {
                ctx.writer.delete::<Service>(&ctx.namespace, &shadow, &uid).await?;
                tracing::info!(service = %id, %shadow, "shadow Service deleted");
            }
            Self::Nothing => {}
        }
        Ok(())
    }
}

fn written(id: &ServiceId, shadow: &Service) {
    let ports = ShadowFacts::of(shadow).map(|facts| facts.ports);
    tracing::info!(service = %id, shadow = shadow.name_any(), ?ports, "shadow Service written");
}

/// What is to be done for a Service.
pub(super) struct Decided {
    pub step: Step,
    /// What its shadow says once that is done, as (port, listen port): it gives back the listen ports of all others.
    pub ports: Vec<(u16, u16)>,
    /// A port of it that gets no listen port of the range. The others are carried all the same.
    pub refused: Option<NoPort>,
}

/// What was decided for a Service, and how it went.
pub(super) struct Written {
    pub id: ServiceId,
    pub ports: Vec<(u16, u16)>,
    pub refused: Option<NoPort>,
    pub began: Instant,
    pub done: Result<(), ShadowError>,
}

/// Takes the step that was decided for the Service `id`.
pub(super) async fn write(ctx: &Context, id: ServiceId, decided: Decided) -> Written {
    let Decided { step, ports, refused } = decided;
    let began = Instant::now();
    let done = step.take(ctx, &id).await;
    Written { id, ports, refused, began, done }
}
