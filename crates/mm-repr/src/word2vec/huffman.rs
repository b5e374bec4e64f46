//! The Huffman tree of hierarchical softmax, in which frequent words have short codes.

/// Binary codes of all words.
pub(super) struct HuffmanTree {
    /// For each word, the inner nodes on the path from the root and whether the path turns right at each.
    paths: Vec<Vec<(u32, bool)>>,
}

impl HuffmanTree {
    /// Builds the tree in linear time from counts in descending order: with two queues, leaves from the rarest on and
    /// inner nodes in order of creation.
    pub(super) fn new(counts: &[u64]) -> Self {
        let num_words = counts.len();
        let mut weights: Vec<u64> = counts.to_vec();
        let (mut parent, mut is_right) = (vec![0usize; 2 * num_words], vec![false; 2 * num_words]);
        let (mut leaf, mut inner) = (num_words, num_words);
        for _ in 0..num_words.saturating_sub(1) {
            let mut pop_lightest = || {
                if leaf > 0 && (inner >= weights.len() || weights[leaf - 1] < weights[inner]) {
                    leaf -= 1;
                    leaf
                } else {
                    inner += 1;
                    inner - 1
                }
            };
            let (left, right) = (pop_lightest(), pop_lightest());
            let node = weights.len();
            weights.push(weights[left] + weights[right]);
            (parent[left], parent[right], is_right[right]) = (node, node, true);
        }
        let root = weights.len() - 1;
        let path = |word: usize| {
            let (mut node, mut path) = (word, Vec::new());
            while node != root {
                path.push(((parent[node] - num_words) as u32, is_right[node]));
                node = parent[node];
            }
            path.reverse();
            path
        };
        Self { paths: (0..num_words).map(path).collect() }
    }

    pub(super) fn path(&self, word: u32) -> &[(u32, bool)] {
        &self.paths[word as usize]
    }
}
