//! Adds, replaces and removes our block in a Corefile. Everything else stays byte for byte.

/// First line of our block.
pub const BEGIN: &str = "# BEGIN weft.mesh: managed by weft-operator, edits within are undone";
/// Last line of our block.
pub const END: &str = "# END weft.mesh";

/// Why a Corefile is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorefileError {
    /// One of the marks is missing or they are in disorder; where the block ends is a guess we do not make.
    #[error("the marks around Weft's block are damaged; remove the lines from {BEGIN:?} to {END:?} by hand")]
    Marks,
}

/// The Corefile with our block being `block` (one that ends in a line feed), or without it.
///
/// The block begins on a line of its own. When the Corefile does not end with a line feed one is put before the block, and
/// taken away with it, so that adding and removing gives the same bytes.
pub fn edit(corefile: &str, block: Option<&str>) -> Result<String, CorefileError> {
    let without = remove(corefile)?;
    let Some(block) = block else { return Ok(without) };
    let glue = if without.is_empty() || without.ends_with('\n') { "" } else { "\n" };
    // A glue line feed belongs to us: the mark says so.
    let glued = if glue.is_empty() { "" } else { GLUED };
    Ok(format!("{without}{glue}{BEGIN}{glued}\n{block}{END}\n"))
}

/// Behind [`BEGIN`] when the line feed before it is ours.
const GLUED: &str = " (and the line feed before)";

fn remove(corefile: &str) -> Result<String, CorefileError> {
    let begins: Vec<_> = corefile.match_indices(BEGIN).map(|(at, _)| at).collect();
    let ends: Vec<_> = corefile.match_indices(END).map(|(at, _)| at).collect();
    let (begin, end) = match (begins.as_slice(), ends.as_slice()) {
        ([], []) => return Ok(corefile.to_owned()),
        ([begin], [end]) if begin < end => (*begin, *end),
        _ => return Err(CorefileError::Marks),
    };
    let at_line_start = begin == 0 || corefile[..begin].ends_with('\n');
    if !at_line_start {
        return Err(CorefileError::Marks);
    }
    let glued = corefile[begin + BEGIN.len()..].starts_with(GLUED);
    let before = &corefile[..begin];
    let before = if glued { before.strip_suffix('\n').unwrap_or(before) } else { before };
    let after = &corefile[end + END.len()..];
    let after = after.strip_prefix('\n').unwrap_or(after);
    Ok(format!("{before}{after}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: &str = "weft.mesh:53 {\n    errors\n}\n";
    const KUBEADM: &str = ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       ttl 30\n    }\n    prometheus :9153\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n    cache 30\n    loop\n    reload\n    loadbalance\n}\n";

    #[test]
    fn the_block_stands_at_the_end() {
        insta::assert_snapshot!(edit(KUBEADM, Some(BLOCK)).unwrap());
    }

    #[test]
    fn replacing_changes_only_the_block() {
        let first = edit(KUBEADM, Some(BLOCK)).unwrap();
        let second = edit(&first, Some("other:53 {\n}\n")).unwrap();
        assert_eq!(second, edit(KUBEADM, Some("other:53 {\n}\n")).unwrap());
        assert_eq!(edit(&first, Some(BLOCK)).unwrap(), first, "the same again is no change");
    }

    #[test]
    fn what_others_add_behind_the_block_stays() {
        let with = edit(KUBEADM, Some(BLOCK)).unwrap() + "extra:53 {\n}\n";
        assert_eq!(edit(&with, None).unwrap(), format!("{KUBEADM}extra:53 {{\n}}\n"));
    }

    #[test]
    fn damaged_marks_are_not_guessed_at() {
        let with = edit(KUBEADM, Some(BLOCK)).unwrap();
        for damaged in
            [with.replace(END, ""), with.replace(BEGIN, ""), with.clone() + &with, format!("{END}\n{with}")]
        {
            let error = edit(&damaged, None).expect_err("must be refused");
            assert!(error.to_string().contains("by hand"), "{error}");
        }
    }

    proptest! {
        /// Whatever stands there, with any line ends: added and removed is as before.
        #[test]
        fn added_and_removed_is_byte_for_byte_as_before(corefile in "(\\PC|\n|\r\n|\\{|\\}|#|\t){0,60}") {
            let with = edit(&corefile, Some(BLOCK)).unwrap();
            prop_assert!(with.contains(BLOCK));
            prop_assert_eq!(edit(&with, None).unwrap(), corefile);
        }
    }
}
