"""MMBench-CN: MMBench in Chinese."""

from __future__ import annotations

from typing import ClassVar

from llavakit.eval.tasks.mmbench import MMBench


class MMBenchCN(MMBench):
    name = "mmbench_cn"
    also: ClassVar[tuple[str, ...]] = ()
    letter: ClassVar[str] = "请直接回答选项字母。"
    files: ClassVar[tuple[str, ...]] = (
        "mmbench_dev_cn*.tsv",
        "MMBench_DEV_CN*.tsv",
        "*_cn_*.tsv",
        "*_CN*.tsv",
        "*.xlsx",
    )
    copies: ClassVar[tuple[str, ...]] = ("cn/dev*.parquet", "cn/test*.parquet", "dev*.parquet", "test*.parquet")

    def _own(self, name: str) -> bool:
        return "_cn" in name.lower() or name.endswith(".xlsx")


BENCHMARK = MMBenchCN()
