//! What is to be done for a Service, from what is known of it now. Nothing is written here.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use tokio::time::Instant;
use weft_config::ServiceId;

use super::desired::desired;
use super::step::{Decided, Step};
use super::{ShadowError, Worker};
use crate::annotations;
use crate::apply::WriteError;
use crate::index::facts::{ShadowFacts, fingerprint, is_remnant};
use crate::names::ShadowName;
use crate::ports::NoPort;

impl Worker<'_> {
    /// Until when nothing is decided for `id`, since what was sent for it and given up may still land: over what is decided now, which
    /// may give away the listen ports that it has.
    pub(super) fn in_doubt_until(&mut self, id: &ServiceId) -> Option<Instant> {
        let until = *self.in_doubt.get(id)?;
        if until > Instant::now() {
            return Some(until);
        }
        self.in_doubt.remove(id);
        None
    }

    /// Whether the index has yet to hear of what the record has of `id`, or of what was written for it. Services and their shadows
    /// come by one watch: while it shows an older shadow, its Service may be older too, and what that no longer had might be taken
    /// from what it has.
    pub(super) async fn is_behind(&mut self, id: &ServiceId) -> bool {
        if let Some(written) = self.unheard.get(id)
            && self.ctx.index.shadow(id).is_some_and(|shadow| shadow.ports == *written)
        {
            self.unheard.remove(id);
        }
        if !self.behind.contains(id) && !self.unheard.contains_key(id) {
            return false;
        }
        let live = match self.live(id).await {
            Ok(live) => live.map(|live| live.ports),
            Err(error) => {
                tracing::warn!(%error, "shadow Service");
                return true;
            }
        };
        let behind = live != self.ctx.index.shadow(id).map(|shadow| shadow.ports.clone());
        if !behind {
            self.behind.remove(id);
            self.unheard.remove(id);
        }
        behind
    }

    /// What is to be done for a Service. When the range has not enough listen ports for it, it has those of its ports carried
    /// that get one; the ones it gives back thereby may serve the others soon after.
    pub(super) async fn decide(&mut self, id: &ServiceId, removing: bool) -> Result<Decided, ShadowError> {
        let Some(service) = self.ctx.index.meshed(id).filter(|_| !removing) else {
            return Ok(Decided { step: self.none(id, removing).await?, ports: Vec::new(), refused: None });
        };
        let (mut ports, mut refused) = (Vec::new(), None);
        for port in annotations::carried(&service, &self.ctx.index.defaults()) {
            let listen_port = match self.allocate(id, port.port).await {
                Ok(listen_port) => Some(listen_port),
                // What it has by its shadow is not taken from it before it is known who has it.
                Err(claimed @ NoPort::Claimed(..)) => return Err(claimed.into()),
                Err(no_port) => {
                    refused = refused.or(Some(no_port));
                    self.allocator.outside(id, port.port)
                }
            };
            ports.extend(listen_port.map(|listen_port| (port.clone(), listen_port)));
        }
        match refused {
            // It has none that is still wanted, and nobody else has one to give.
            Some(NoPort::Exhausted(..)) if ports.is_empty() => {
                return Ok(Decided { step: self.none(id, removing).await?, ports: Vec::new(), refused });
            }
            Some(in_doubt) if ports.is_empty() => return Err(in_doubt.into()),
            _ => {}
        }
        let desired = desired(id, &ports, self.prefer_same_node, &self.ctx.namespace, &self.owner);
        let mut desired: Service =
            serde_json::from_value(desired).map_err(|error| ShadowError::Object(id.clone(), error))?;
        let step = match self.ctx.index.shadow(id) {
            None if self.kept => Step::Create(Box::new(desired)),
            Some(live) if live.fingerprint != fingerprint(&desired) => {
                desired.metadata.uid = Some(live.uid.to_string());
                Step::Change(Box::new(desired))
            }
            None | Some(_) => Step::Nothing,
        };
        let ports = ports.iter().map(|(port, listen_port)| (port.port, *listen_port)).collect();
        Ok(Decided { step, ports, refused })
    }

    /// That `id` has no shadow.
    async fn none(&self, id: &ServiceId, removing: bool) -> Result<Step, ShadowError> {
        match self.unwanted(id, removing) {
            Step::Nothing if self.there.contains(id) || self.allocator.owns_any(id) => {
                self.unseen(id, removing).await
            }
            step => Ok(step),
        }
    }

    /// The record has a shadow of `id` that the index does not, or what somebody has made of one: it may have gone, or the watch has
    /// not told of it yet. Only in the first case are its ports free.
    async fn unseen(&self, id: &ServiceId, removing: bool) -> Result<Step, ShadowError> {
        let namespace = &*self.ctx.namespace;
        let itself = self.is_itself(id);
        let name = if itself { id.name.to_string() } else { ShadowName::of(id).as_str().to_owned() };
        if itself && !removing && self.ctx.index.meshed_by_shadow(&name).is_some() {
            return Ok(Step::Nothing);
        }
        let live = self.ctx.writer.look::<Service>(namespace, &name).await?;
        let uid = live.filter(|live| is_remnant(namespace, live)).and_then(|live| live.metadata.uid);
        Ok(uid.map_or(Step::Nothing, |uid| Step::Delete(name.into(), uid.into())))
    }

    /// Whether `id` is no Service in the mesh, since none of our own namespace is, but what somebody has made of a shadow.
    fn is_itself(&self, id: &ServiceId) -> bool {
        *id.namespace == *self.ctx.namespace
    }

    /// The shadow of `id` as the API server has it.
    async fn live(&self, id: &ServiceId) -> Result<Option<ShadowFacts>, WriteError> {
        let (namespace, name) = (&*self.ctx.namespace, ShadowName::of(id));
        let live = self.ctx.writer.look::<Service>(namespace, name.as_str()).await?;
        let ours = live.and_then(|live| ShadowFacts::of_ours(namespace, &live));
        Ok(ours.filter(|shadow| shadow.service == *id))
    }

    /// The shadow goes that is there although `id` is not in the mesh; or `id` itself, when it is one that somebody has made
    /// unrecognizable and no Service in the mesh is to have it back.
    fn unwanted(&self, id: &ServiceId, removing: bool) -> Step {
        let index = &self.ctx.index;
        if let Some(shadow) = index.shadow(id) {
            return Step::Delete(Arc::clone(&shadow.name), Arc::clone(&shadow.uid));
        }
        let (strays, shadow) = (index.strays(), ShadowName::of(id));
        let stray = strays.get(shadow.as_str()).or_else(|| {
            let stray = strays.get(&id.name).filter(|_| self.is_itself(id))?;
            (removing || index.meshed_by_shadow(&id.name).is_none()).then_some(stray)
        });
        let stray =
            stray.and_then(|name| index.service(&ServiceId::new(&*self.ctx.namespace, Arc::clone(name))));
        stray.map_or(Step::Nothing, |stray| Step::Delete(Arc::clone(&stray.id.name), Arc::clone(&stray.uid)))
    }
}
