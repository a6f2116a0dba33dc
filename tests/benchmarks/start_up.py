"""placeholder until START commits"""
