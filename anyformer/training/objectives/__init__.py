"""What training minimises."""

TABLE = {
    "answering": "answering:Answering",
    "classification": "classification:Classification",
    "contrastive": "contrastive:Contrastive",
    "distillation": "distillation:Distillation",
    "masked": "masked:Masked",
    "next_token": "next_token:NextToken",
    "preferences": "preferences:Preferences",
    "prompted": "prompted:Prompted",
    "regression": "regression:Regression",
    "replies": "replies:Replies",
    "seq2seq": "seq2seq:Seq2Seq",
    "span_corruption": "span_corruption:SpanCorruption",
    "tagging": "tagging:Tagging",
}
