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
    let after = &corefile[end + END.len()..];
    let after = after.strip_prefix('\n').unwrap_or(after);
    let before = &corefile[..begin];
    // Without the line feed what somebody added behind the block would end up on the line before it.
    let glued = glued && after.is_empty();
    let before = if glued { before.strip_suffix('\n').unwrap_or(before) } else { before };
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

    /// As k3s ships it: its own additions are imported, from inside and from outside of the server block.
    const IMPORTS: &str = ".:53 {\n    errors\n    hosts /etc/coredns/NodeHosts {\n      ttl 60\n      reload 15s\n      fallthrough\n    }\n    import /etc/coredns/custom/*.override\n}\nimport /etc/coredns/custom/*.server";
    /// Edited on Windows, with a comment last.
    const CARRIAGE_RETURNS: &str = ".:53 {\r\n    errors\r\n}\r\n# ours, do not touch\r\n";
    /// Server blocks of others, around and behind.
    const STUB_ZONES: &str = "# corporate\ncorp.example:53 {\n    forward . 192.0.2.53\n}\n\n.:53 {\n    forward . /etc/resolv.conf\n}\n\nlab.example:53 {\n    import snippet\n}\n\n";

    #[test]
    fn corefiles_of_all_kinds() {
        let all = [
            ("imports", IMPORTS),
            ("carriage returns", CARRIAGE_RETURNS),
            ("stub zones", STUB_ZONES),
            ("empty", ""),
        ];
        let mut text = String::new();
        for (title, corefile) in all {
            let with = edit(corefile, Some(BLOCK)).unwrap();
            assert_eq!(edit(&with, None).unwrap(), corefile, "{title}");
            // What is between the bars is byte for byte what CoreDNS gets.
            text += &format!("== {title} |{}|\n", with.replace('\r', "<CR>"));
        }
        insta::assert_snapshot!(text);
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
        let with = edit(IMPORTS, Some(BLOCK)).unwrap() + "extra:53 {\n}\n";
        assert_eq!(
            edit(&with, None).unwrap(),
            format!("{IMPORTS}\nextra:53 {{\n}}\n"),
            "on a line of its own"
        );
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
