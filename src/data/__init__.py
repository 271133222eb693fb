"""Click logs as data: raw lines, columns, vocabulary, encoder, MindRecord records, and a data folder's manifest."""
