//! Hard links in one form: the first name is the entry, the others point to it.

use std::collections::BTreeMap;

use super::{Node, Tree};
use crate::LayerError;

/// Moves each node to the first of its names and points the other names there.
pub(super) fn normalise(tree: &mut Tree) -> Result<(), LayerError> {
    let names = names_of_inodes(tree)?;
    for (inode, mut names) in names {
        names.push(inode);
        names.sort_unstable();
        let [first, others @ ..] = &*names else { continue };
        if *first != inode {
            let node = take_node(tree, inode);
            tree.entries[*first].node = node;
        }
        let target = tree.entries[*first].path.clone();
        let metadata = tree.entries[inode].metadata.clone();
        tree.entries[*first].metadata = metadata.clone();
        for other in others {
            tree.entries[*other].node = Node::HardLink { target: target.clone() };
            tree.entries[*other].metadata = metadata.clone();
        }
    }
    Ok(())
}

fn take_node(tree: &mut Tree, at: usize) -> Node {
    std::mem::replace(&mut tree.entries[at].node, Node::Whiteout)
}

/// For each entry that hard links lead to, the places of those links.
fn names_of_inodes(tree: &Tree) -> Result<BTreeMap<usize, Vec<usize>>, LayerError> {
    // Remembering where each link leads keeps long chains of links linear.
    let mut known = BTreeMap::new();
    let mut names = BTreeMap::<usize, Vec<usize>>::new();
    for link in 0..tree.entries.len() {
        if matches!(tree.entries[link].node, Node::HardLink { .. }) {
            let inode = find_inode(tree, link, &mut known)?;
            names.entry(inode).or_default().push(link);
        }
    }
    Ok(names)
}

/// The place of what a hard link leads to, over other hard links.
fn find_inode(
    tree: &Tree,
    link: usize,
    known: &mut BTreeMap<usize, usize>,
) -> Result<usize, LayerError> {
    let problem = |problem| LayerError::Tree { path: tree.entries[link].path.clone(), problem };
    let mut chain = Vec::new();
    let mut at = link;
    let inode = loop {
        if let Some(inode) = known.get(&at) {
            break *inode;
        }
        match &tree.entries[at].node {
            Node::HardLink { target } => {
                // A chain longer than the list of entries goes in a circle.
                if chain.len() > tree.entries.len() {
                    return Err(problem("it is a hard link to itself"));
                }
                chain.push(at);
                at = tree.position(target).map_err(|_| {
                    problem("the file that it is a hard link to is not in the same layer")
                })?;
            }
            Node::Directory { .. } | Node::Whiteout => {
                return Err(problem("it is a hard link to a directory or to nothing"));
            }
            _ => break at,
        }
    };
    known.extend(chain.into_iter().map(|at| (at, inode)));
    Ok(inode)
}
