//! Adds, replaces and removes our block in a Corefile. Everything else stays byte for byte.
//!
//! The first line between the marks names the mesh's namespace, so that each mesh of a cluster has a block of its own and leaves
//! the others' alone. The marks themselves are those of the first version: one that is rolled back to must find its block. It
//! wrote no such line; a block without one is ours when it leads into our namespace.

use std::ops::Range;

/// The first line of a block.
const BEGIN: &str = "# BEGIN weft.mesh: managed by weft-operator, edits within are undone";
/// The last line of a block.
const END: &str = "# END weft.mesh";
/// Behind [`BEGIN`] when the line feed before the block is ours.
const GLUED: &str = " (and the line feed before)";
/// Before the mesh's namespace in a block that leads names into it, whichever version wrote it.
const NOBODY: &str = " no-such-name.";
/// Before the mesh's namespace, in the line after [`BEGIN`].
const OF: &str = "# for the mesh in namespace ";
/// What lines begin with that are marks, or were before somebody damaged them.
const LIKE_MARKS: [&str; 2] = ["# BEGIN weft.mesh", END];

/// Why a Corefile is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorefileError {
    /// One of the marks is missing or they are in disorder; where the block ends is a guess we do not make.
    #[error(
        "the marks around Weft's block are damaged; remove the lines from {BEGIN:?} to {END:?} by hand (of two meshes' blocks those whose second line names this namespace)"
    )]
    Marks,
}

/// A block of ours or of another mesh, with its marks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found<'a> {
    /// All its lines.
    lines: Range<usize>,
    /// Those between the marks, without the one that names the namespace.
    inner: Range<usize>,
    /// The mesh's namespace, where the block says so.
    mesh: Option<&'a str>,
    glued: bool,
}

/// The Corefile with the block of the mesh of `namespace` being `block` (one that ends in a line feed), or without it.
///
/// A new block stands at the end, on a line of its own; one that is there stays where it is. When the Corefile does not end with
/// a line feed one is put before the block, and taken away with it, so that adding and removing gives the same bytes.
pub fn edit(corefile: &str, namespace: &str, block: Option<&str>) -> Result<String, CorefileError> {
    let blocks = blocks(corefile)?;
    let ours: Vec<_> = blocks.iter().filter(|found| found.is_of(corefile, namespace)).collect();
    match (ours.as_slice(), block) {
        ([], None) => Ok(corefile.to_owned()),
        ([], Some(block)) => {
            let glued = !(corefile.is_empty() || corefile.ends_with('\n'));
            let glue = if glued { "\n" } else { "" };
            Ok(format!("{corefile}{glue}{}", marked(namespace, block, glued)))
        }
        ([found], Some(block)) => {
            let (before, feed) = parted(corefile, found);
            let after = &corefile[found.lines.end..];
            Ok(format!("{before}{feed}{}{after}", marked(namespace, block, found.glued)))
        }
        ([found], None) => Ok(without(corefile, found, &blocks)),
        _ => Err(CorefileError::Marks),
    }
}

/// What stands between the marks of the mesh of `namespace`.
pub fn inner<'a>(corefile: &'a str, namespace: &str) -> Option<&'a str> {
    let blocks = blocks(corefile).ok()?;
    let ours = blocks.iter().find(|found| found.is_of(corefile, namespace))?;
    Some(&corefile[ours.inner.clone()])
}

fn marked(namespace: &str, block: &str, glued: bool) -> String {
    let glued = if glued { GLUED } else { "" };
    format!("{BEGIN}{glued}\n{OF}{namespace}\n{block}{END}\n")
}

fn without(corefile: &str, found: &Found<'_>, blocks: &[Found<'_>]) -> String {
    let (before, after) = (&corefile[..found.lines.start], &corefile[found.lines.end..]);
    // The line feed before goes with the block. Where another mesh's block follows it becomes that one's; where somebody has
    // added something it stays, or that would end up on the line before.
    let next = blocks.iter().find(|next| next.lines.start == found.lines.end);
    match next.filter(|next| next.glued != found.glued) {
        Some(next) => {
            let (from, to) = if found.glued { ("", GLUED) } else { (GLUED, "") };
            let theirs =
                corefile[next.lines.clone()].replacen(&format!("{BEGIN}{from}"), &format!("{BEGIN}{to}"), 1);
            format!("{before}{theirs}{}", &corefile[next.lines.end..])
        }
        None if found.glued && after.is_empty() => parted(corefile, found).0.to_owned(),
        None => format!("{before}{after}"),
    }
}

/// What stands before a block, and the line feed behind it that is ours.
fn parted<'a>(corefile: &'a str, found: &Found<'_>) -> (&'a str, &'static str) {
    let before = &corefile[..found.lines.start];
    let Some(line) = before.strip_suffix('\n').filter(|_| found.glued) else { return (before, "") };
    // An editor may have changed all line ends, this one among them.
    let by_an_editor = corefile[found.lines.clone()].contains("\r\n");
    (if by_an_editor { line.strip_suffix('\r').unwrap_or(line) } else { line }, "\n")
}

/// All blocks between marks, in their order.
fn blocks(corefile: &str) -> Result<Vec<Found<'_>>, CorefileError> {
    let mut blocks = Vec::new();
    let mut open: Option<Found<'_>> = None;
    let mut at = 0;
    for line in corefile.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        let text = line.trim();
        match &mut open {
            None if text.strip_prefix(BEGIN).is_some_and(|rest| rest.is_empty() || rest == GLUED) => {
                let glued = text.ends_with(GLUED);
                open = Some(Found { lines: start..end, inner: end..end, mesh: None, glued });
            }
            Some(found) if text == END => {
                (found.lines.end, found.inner.end) = (end, start);
                if found.mesh.is_none() && !corefile[found.inner.clone()].contains(NOBODY) {
                    // Nothing tells whose it is.
                    return Err(CorefileError::Marks);
                }
                blocks.extend(open.take());
            }
            _ if LIKE_MARKS.iter().any(|mark| text.starts_with(mark)) => return Err(CorefileError::Marks),
            Some(found) => match text.strip_prefix(OF) {
                Some(mesh) if found.mesh.is_none() && found.inner.start == start => {
                    (found.mesh, found.inner) = (Some(mesh), end..end);
                }
                // The end of one block and the beginning of another are lost.
                Some(_) => return Err(CorefileError::Marks),
                None => {}
            },
            None => {}
        }
    }
    if open.is_some() { Err(CorefileError::Marks) } else { Ok(blocks) }
}

impl Found<'_> {
    fn is_of(&self, corefile: &str, namespace: &str) -> bool {
        match self.mesh {
            Some(mesh) => mesh == namespace,
            None => corefile[self.inner.clone()].contains(&format!("{NOBODY}{namespace}.svc.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESH: &str = "weft-system";
    const BLOCK: &str = "weft.mesh:53 {\n    errors\n}\n";
    const KUBEADM: &str = include_str!("corefiles/kubeadm.Corefile");
    const OPEN_END: &str = ".:53 {\n    errors\n}\nimport custom/*.server";

    fn add(corefile: &str) -> String {
        edit(corefile, MESH, Some(BLOCK)).unwrap()
    }

    fn remove(corefile: &str) -> String {
        edit(corefile, MESH, None).unwrap()
    }

    #[test]
    fn the_block_stands_at_the_end() {
        insta::assert_snapshot!(add(KUBEADM));
    }

    #[test]
    fn replacing_changes_only_the_block_and_leaves_it_where_it_is() {
        let first = add(KUBEADM);
        let second = edit(&first, MESH, Some("other:53 {\n}\n")).unwrap();
        assert_eq!(second, edit(KUBEADM, MESH, Some("other:53 {\n}\n")).unwrap());
        assert_eq!(add(&first), first, "the same again is no change");
        let behind = first + "extra:53 {\n}\n";
        assert_eq!(add(&behind), behind);
        assert_eq!(inner(&second, MESH), Some("other:53 {\n}\n"));
        assert_eq!(inner(KUBEADM, MESH), None);
    }

    #[test]
    fn what_others_add_behind_the_block_stays() {
        let extra = "extra:53 {\n}\n";
        assert_eq!(remove(&(add(KUBEADM) + extra)), format!("{KUBEADM}{extra}"));
        assert_eq!(remove(&(add(OPEN_END) + extra)), format!("{OPEN_END}\n{extra}"), "on a line of its own");
    }

    #[test]
    fn a_block_of_an_older_version_is_replaced_where_it_leads_to_us() {
        let text = |namespace: &str| {
            format!(
                "weft.mesh:53 {{\n    rewrite stop name exact dns-check.weft.mesh kubernetes.default.svc.cluster.local\n    \
                 rewrite stop name regex .* no-such-name.{namespace}.svc.cluster.local\n}}\n"
            )
        };
        for glued in ["", GLUED] {
            let old = |namespace: &str| {
                let end = if glued.is_empty() { "\n" } else { "" };
                let before = format!("{OPEN_END}{end}");
                let feed = if glued.is_empty() { "" } else { "\n" };
                format!("{before}{feed}{BEGIN}{glued}\n{}{END}\n", text(namespace))
            };
            let ours = old(MESH);
            let replaced = add(&ours);
            assert!(replaced.contains("\n# for the mesh in namespace weft-system\n"), "{replaced}");
            assert_eq!(replaced.matches(BEGIN).count(), 1, "{replaced}");
            let bare = if glued.is_empty() { format!("{OPEN_END}\n") } else { OPEN_END.to_owned() };
            assert_eq!((remove(&ours), remove(&replaced)), (bare.clone(), bare));
            let theirs = old("other-system");
            assert_eq!(remove(&theirs), theirs, "another mesh's");
            assert_eq!(edit(&theirs, "default", None).unwrap(), theirs, "whatever the check name leads to");
            assert_eq!(add(&theirs).matches(BEGIN).count(), 2);
        }
    }

    #[test]
    fn the_first_version_finds_its_marks() {
        let with = add(OPEN_END);
        // It takes what is between these two, each of which it wants once, and looks for no other line.
        let begin = "\n# BEGIN weft.mesh: managed by weft-operator, edits within are undone (and the line feed before)\n";
        assert_eq!(with.matches(begin).count(), 1, "{with}");
        assert!(with.matches(END).count() == 1 && with.ends_with("\n# END weft.mesh\n"), "{with}");
    }

    #[test]
    fn two_meshes_have_a_block_each() {
        // One's namespace begins with the other's.
        let (a, b) = ("weft", "weft-system");
        for original in [KUBEADM, OPEN_END, ""] {
            let both = edit(&edit(original, a, Some("a {\n}\n")).unwrap(), b, Some("b {\n}\n")).unwrap();
            assert_eq!((inner(&both, a), inner(&both, b)), (Some("a {\n}\n"), Some("b {\n}\n")));
            assert_eq!(edit(&both, a, Some("a {\n}\n")).unwrap(), both, "nobody moves the other");
            assert_eq!(edit(&both, b, Some("b {\n}\n")).unwrap(), both);
            for (first, second) in [(a, b), (b, a)] {
                let one = edit(&both, first, None).unwrap();
                assert!(inner(&one, first).is_none() && inner(&one, second).is_some(), "{one}");
                assert_eq!(
                    edit(&one, second, Some(inner(&one, second).unwrap())).unwrap(),
                    one,
                    "no write for it"
                );
                assert_eq!(edit(&one, second, None).unwrap(), original, "byte for byte, in either order");
            }
        }
    }

    #[test]
    fn a_line_feed_that_was_the_users_stays_his_when_another_block_came_to_lean_on_it() {
        let with = edit(KUBEADM, "a", Some("a {\n}\n")).unwrap();
        let trimmed = with.trim_end();
        let both = edit(trimmed, "b", Some("b {\n}\n")).unwrap();
        assert!(both.contains(GLUED), "{both}");
        let one = edit(&both, "a", None).unwrap();
        assert_eq!(edit(&one, "b", None).unwrap(), KUBEADM);
    }

    #[test]
    fn line_ends_of_another_editor_do_not_hide_the_marks() {
        for original in [KUBEADM, OPEN_END] {
            let with = add(original).replace('\n', "\r\n");
            assert_eq!(remove(&with), original.replace('\n', "\r\n"));
            let rewritten = edit(&with, MESH, Some("other:53 {\n}\n")).unwrap();
            assert_eq!(remove(&rewritten), original.replace('\n', "\r\n"), "{rewritten:?}");
        }
    }

    #[test]
    fn damaged_marks_are_not_guessed_at() {
        let with = add(KUBEADM);
        let (begin, end) = (format!("{BEGIN}\n"), format!("{END}\n"));
        assert!(with.contains(&begin) && with.contains(&end));
        for damaged in [
            with.replace(&end, ""),
            with.replace(&begin, ""),
            with.clone() + &with,
            format!("{end}{with}"),
            with.replace(&end, "# END weft.mesh of another\n"),
            with.replace(": managed by weft-operator", ""),
            with.replace(OF, "# for whom was it "),
            with.replace(OF, &format!("{OF}another\n{OF}")),
            // The end of this one and the beginning of the next are lost.
            format!("{}{}", with.replace(&end, "mine {\n}\n"), add("").replace(&begin, "")),
        ] {
            let error = edit(&damaged, MESH, None).expect_err("must be refused");
            assert!(error.to_string().contains("by hand"), "{error}");
            assert!(edit(&damaged, MESH, Some(BLOCK)).is_err());
        }
    }

    proptest! {
        /// Whatever stands there, with any line ends: added and removed is as before.
        #[test]
        fn added_and_removed_is_byte_for_byte_as_before(corefile in "(\\PC|\n|\r\n|\\{|\\}|#|\t){0,60}") {
            let with = add(&corefile);
            prop_assert!(with.contains(BLOCK));
            prop_assert_eq!(remove(&with), corefile);
        }
    }
}
