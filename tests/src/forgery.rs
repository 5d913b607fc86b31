//! Headers in which a client might claim to be somebody else, in every spelling that some server takes for the same.

/// What a proxy tells of its client, and nobody else may.
pub const OURS: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "forwarded",
];

/// Every way to write `name`: `-` and `_` mixed, in four cases.
pub fn spellings(name: &str) -> Vec<String> {
    let words: Vec<_> = name.split('-').collect();
    let joints = words.len() - 1;
    let mut all = Vec::new();
    for mask in 0..1_u32 << joints {
        let mut joined = words[0].to_owned();
        for (joint, word) in words[1..].iter().enumerate() {
            joined.push(if mask >> joint & 1 == 1 { '_' } else { '-' });
            joined.push_str(word);
        }
        let title: String =
            joined.split_inclusive(['-', '_']).map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let alternating: String = joined
            .char_indices()
            .map(|(at, char)| if at % 2 == 1 { char.to_ascii_uppercase() } else { char })
            .collect();
        all.extend([joined.to_uppercase(), title, alternating, joined]);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_sixty_spellings_and_more() {
        let all: BTreeSet<_> = OURS.iter().flat_map(|name| spellings(name)).collect();
        assert!(all.len() >= 60, "{}", all.len());
        assert!(all.contains("X_Forwarded-For") && all.contains("fOrWaRdEd"), "{all:?}");
    }
}
