"""Tokens and keys: who may say who they are."""
