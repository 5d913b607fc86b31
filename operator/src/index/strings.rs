//! Texts that many objects have in common, each kept once: namespaces, nodes, accounts, labels, the names of Services.

use std::collections::HashSet;
use std::sync::Arc;

use weft_config::ServiceId;

/// So many are kept before those nobody has any more are looked for.
const FEW: usize = 1024;

/// All of them.
#[derive(Debug)]
pub(super) struct Strings {
    known: HashSet<Arc<str>>,
    /// With so many, those nobody has any more are forgotten.
    sweep_at: usize,
}

impl Default for Strings {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: FEW }
    }
}

impl Strings {
    /// Makes `text` the one that is kept of those that read the same.
    pub(super) fn share(&mut self, text: &mut Arc<str>) {
        if let Some(known) = self.known.get(&**text) {
            *text = Arc::clone(known);
            return;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = FEW.max(self.known.len() * 2);
        }
        self.known.insert(Arc::clone(text));
    }

    /// The same for both parts of a Service's name.
    pub(super) fn share_id(&mut self, id: &mut ServiceId) {
        self.share(&mut id.namespace);
        self.share(&mut id.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_as_long_as_somebody_has_it() {
        let mut strings = Strings::default();
        let [mut one, mut two]: [Arc<str>; 2] = ["shop".into(), "shop".into()];
        strings.share(&mut one);
        strings.share(&mut two);
        assert!(Arc::ptr_eq(&one, &two));
        for number in 0..FEW * 3 {
            strings.share(&mut number.to_string().into());
        }
        assert!(strings.known.len() <= FEW + 1, "{} are kept that nobody has", strings.known.len());
        let mut three: Arc<str> = "shop".into();
        strings.share(&mut three);
        assert!(Arc::ptr_eq(&one, &three), "one that is in use is not forgotten");
    }
}
