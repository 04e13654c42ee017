"""Whole models, each a short declaration."""

TABLE = {
    "decoder": "decoder:Decoder",
    "encoder": "encoder:Encoder",
    "encoder_decoder": "encoder_decoder:EncoderDecoder",
    "two_towers": "two_towers:TwoTowers",
}
