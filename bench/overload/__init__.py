"""Requests that come at their own pace, whether the gateway keeps up or not: below its peak, and at twice the peak."""
