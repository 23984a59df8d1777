-- Questions whose cost must not grow with the ledger.

-- "Which checkpoints are of trees that end in this range of leaves?" `ledgerd verify` asks once for each few thousand leaves, and
-- the primary key begins with the log's name.
create index checkpoint_tree_size on ledger.checkpoint (tree_size);

-- "How many records came again?" Few do, so the index is small, and most commits never touch it.
create index entry_duplicate on ledger.entry (leaf_index) where disposition = 'duplicate';
