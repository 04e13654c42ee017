"""What training minimises."""

TABLE = {
    "answering": "answering:Answering",
    "classification": "classification:Classification",
    "contrastive": "contrastive:Contrastive",
    "masked": "masked:Masked",
    "next_token": "next_token:NextToken",
    "prompted": "prompted:Prompted",
    "regression": "regression:Regression",
    "seq2seq": "seq2seq:Seq2Seq",
    "span_corruption": "span_corruption:SpanCorruption",
    "tagging": "tagging:Tagging",
}
