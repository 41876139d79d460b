"""micropython-lib's driver of a card on SPI, in name: the card is the board's."""

import board


class SDCard(board.SDCard):
    def __init__(self, spi, cs, baudrate):
        super().__init__()
