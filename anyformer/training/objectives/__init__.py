"""What training minimises."""

TABLE = {
    "next_token": "next_token:NextToken",
}
